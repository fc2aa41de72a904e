"""A cursor on the server, and a server that goes away under it."""

from __future__ import annotations

import psycopg
import pytest

from citynet_ingest.store.cursor import read_cursor
from tests.ingest import query

Opened = list[psycopg.ServerCursor[tuple[object, ...]]]


def lose_the_database(
    connection: psycopg.Connection[tuple[object, ...]], dsn: str, opened: Opened, *, is_read: bool
) -> None:
    with read_cursor(connection, "citynet_test") as cursor:
        opened.append(cursor)
        cursor.execute("SELECT generate_series(1, 1000000)")
        assert cursor.fetchmany(10)
        query(dsn, "SELECT pg_terminate_backend(%s, 60000)", connection.info.backend_pid)
        if is_read:
            cursor.fetchmany(10)


@pytest.mark.parametrize("is_read", [True, False], ids=["while-read", "while-closed"])
def test_nothing_stays_open_where_the_database_goes_away(dsn: str, *, is_read: bool) -> None:
    opened: Opened = []
    with psycopg.connect(dsn) as connection:
        with pytest.raises(psycopg.OperationalError):
            lose_the_database(connection, dsn, opened, is_read=is_read)
        assert opened[0].closed


def test_rows_come_in_pieces_and_the_connection_goes_on(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        with connection.transaction(), read_cursor(connection, "citynet_test") as cursor:
            cursor.execute("SELECT generate_series(1, 25)")
            sizes = []
            while rows := cursor.fetchmany(10):
                sizes.append(len(rows))
        assert sizes == [10, 10, 5]
        assert cursor.closed
        assert connection.execute("SELECT 1").fetchone() == (1,)
