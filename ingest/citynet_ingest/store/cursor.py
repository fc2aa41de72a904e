"""A cursor on the server, for results larger than memory should hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg


@contextmanager
def read_cursor(
    connection: psycopg.Connection[tuple[object, ...]], name: str
) -> Iterator[psycopg.ServerCursor[tuple[object, ...]]]:
    """A named cursor of binary results that is closed at the end, also where the database went away while it was open.

    psycopg asks the server to close a cursor before it closes its own side; when the asking fails, ours stays open until it
    is closed once more.
    """
    cursor = connection.cursor(name=name, binary=True)
    try:
        yield cursor
        cursor.close()
    finally:
        with suppress(psycopg.Error):
            cursor.close()
        cursor.close()
