"""Ways in which a database server is away, and what ends them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from citynet.runtime.embedded import EmbeddedPostgres
from tests.ingest import query, wait_for


def stop(database: EmbeddedPostgres) -> None:
    database.stop()


def kill(database: EmbeddedPostgres) -> None:
    database.kill()


def read_only(database: EmbeddedPostgres) -> None:
    _system(database, "ALTER SYSTEM SET default_transaction_read_only = on")
    # The server reads its files anew when it comes to it; from then on whoever connects may not write.
    wait_for(lambda: query(database.dsn(), "SHOW default_transaction_read_only") == [("on",)], "it is read-only")


def start(database: EmbeddedPostgres) -> None:
    database.start()


def writable(database: EmbeddedPostgres) -> None:
    _system(database, "ALTER SYSTEM RESET default_transaction_read_only")


def _system(database: EmbeddedPostgres, text: str) -> None:
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        connection.execute(text.encode())
        connection.execute("SELECT pg_reload_conf()")


OUTAGES: dict[str, tuple[Callable[[EmbeddedPostgres], None], Callable[[EmbeddedPostgres], None]]] = {
    "stopped": (stop, start),
    "killed": (kill, start),
    "read-only": (read_only, writable),
}
