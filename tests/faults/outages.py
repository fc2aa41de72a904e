"""Ways in which a database server is away, and what ends them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from citynet.runtime.embedded import EmbeddedPostgres


def stop(database: EmbeddedPostgres) -> None:
    database.stop()


def kill(database: EmbeddedPostgres) -> None:
    database.kill()


def read_only(database: EmbeddedPostgres) -> None:
    _system(database, "ALTER SYSTEM SET default_transaction_read_only = on")


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
