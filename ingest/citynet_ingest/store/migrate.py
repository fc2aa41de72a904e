"""Schema migrations: numbered plain-SQL files, applied forward only, under a lock, with their checksums kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import psycopg

from citynet.errors import CitynetError
from citynet_ingest.store.server import Server, probe

_NAME = re.compile(r"(\d{4})_([a-z_]+)(?:\.(plain|timescale))?\.sql")
_LOCK = 0x63697479  # "city"
_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(CitynetError):
    """The schema in the database is not the one these migrations make; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(variant: str, folder: Traversable | None = None) -> list[Migration]:
    """The migrations of a variant (``plain`` or ``timescale``), in order.

    Raises:
        MigrationError: a misnamed file, a missing or repeated number.
    """
    found: list[Migration] = []
    for item in sorted((folder or files("citynet_ingest.migrations")).iterdir(), key=lambda entry: entry.name):
        if not item.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(item.name)
        if match is None:
            raise MigrationError(f"migration {item.name}: the name must be NNNN_name[.variant].sql")
        if match[3] in (None, variant):
            found.append(Migration(int(match[1]), item.name, item.read_text(encoding="utf-8")))
    for expected, migration in enumerate(found, 1):
        if migration.number != expected:
            raise MigrationError(f"migration {migration.name}: number {expected:04d} was expected here")
    return found


def check(applied: Sequence[tuple[int, str, str]], known: Sequence[Migration]) -> list[Migration]:
    """Which of `known` are still to be applied, given the rows (number, name, sha256) that the database has.

    Raises:
        MigrationError: an applied migration was edited since, or the database is newer than this program.
    """
    by_number = {migration.number: migration for migration in known}
    for number, name, sha256 in applied:
        migration = by_number.get(number)
        if migration is None:
            raise MigrationError(f"the database has migration {name}, which this version does not know: it is newer")
        if migration.sha256 != sha256:
            raise MigrationError(
                f"migration {name} was changed after it was applied (checksum {sha256[:12]}… in the database)"
            )
    done = {number for number, _, _ in applied}
    return [migration for migration in known if migration.number not in done]


def migrate(dsn: str, **connect: object) -> tuple[Server, list[str]]:
    """Bring a database up to date. Safe to call from several processes at once: one works, the others wait.

    Returns:
        What the server can do, and the names of the migrations that were applied now.

    Raises:
        MigrationError, ServerError: see there. psycopg.OperationalError: no connection.
    """
    with psycopg.connect(dsn, autocommit=True, **connect) as connection:  # type: ignore[arg-type]
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        server = probe(connection)
        connection.execute(_LEDGER)
        applied = connection.execute("SELECT number, name, sha256 FROM migration ORDER BY number").fetchall()
        pending = check([(int(n), str(name), str(sha)) for n, name, sha in applied], load(server.variant))
        for migration in pending:
            with connection.transaction():
                connection.execute(migration.sql.encode())
                connection.execute(
                    "INSERT INTO migration (number, name, sha256) VALUES (%s, %s, %s)",
                    (migration.number, migration.name, migration.sha256),
                )
        return server, [migration.name for migration in pending]


def pending(connection: psycopg.Connection[Any], server: Server) -> list[str]:
    """Names of the migrations that a database still lacks. Raises MigrationError like `check`."""
    return [migration.name for migration in check(_applied(connection), load(server.variant))]


def _applied(connection: psycopg.Connection[Any]) -> list[tuple[int, str, str]]:
    present = connection.execute("SELECT to_regclass('migration') IS NOT NULL").fetchone()
    if not present or not present[0]:
        return []
    return connection.execute("SELECT number, name, sha256 FROM migration ORDER BY number").fetchall()


def status(dsn: str, **connect: object) -> tuple[Server, list[tuple[int, str, str]], list[str]]:
    """The server, the applied migrations (number, name, applied_at), and the names of the pending ones. Changes nothing."""
    with psycopg.connect(dsn, autocommit=True, **connect) as connection:  # type: ignore[arg-type]
        server = probe(connection)
        present = connection.execute("SELECT to_regclass('migration') IS NOT NULL").fetchone()
        rows: list[tuple[object, ...]] = []
        if present and present[0]:
            rows = connection.execute(
                "SELECT number, name, sha256, applied_at::text FROM migration ORDER BY number"
            ).fetchall()
        applied = [(int(str(n)), str(name), str(sha)) for n, name, sha, _ in rows]
        pending = check(applied, load(server.variant))
        return (
            server,
            [(int(str(n)), str(name), str(at)) for n, name, _, at in rows],
            [m.name for m in pending],
        )
