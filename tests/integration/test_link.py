"""The worker's connection: given up where it cannot go on, kept where it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from citynet_ingest.link import Link
from citynet_ingest.settings import IngestSettings
from citynet_ingest.store import sql
from citynet_ingest.store.transaction import Connection


class Slow(psycopg.Connection[tuple[object, ...]]):
    """On a server that is too slow for the question that comes last."""

    def execute(self, query: Any, params: Any = None, **more: Any) -> psycopg.Cursor[tuple[object, ...]]:
        if query == sql.text("has_columnstore"):
            cut_off(self)
        return super().execute(query, params, **more)


def test_a_connection_that_is_not_taken_into_use_is_closed(dsn: str) -> None:
    """It has the locks of our lanes by then."""
    made = [Slow.connect(dsn, autocommit=True), psycopg.connect(dsn, autocommit=True)]
    coming = iter(made)
    link = Link(lambda: next(coming), IngestSettings())
    assert link.retry(link.open) is made[1]
    assert made[0].closed
    link.close()


@pytest.fixture
def link(dsn: str) -> Iterator[Link]:
    link = Link(lambda: psycopg.connect(dsn, autocommit=True), IngestSettings())
    yield link
    link.close()


def left_in_a_pipeline(connection: Connection) -> None:
    """As psycopg leaves it, now and then, where the server ends the connection during `executemany`: it goes by its own
    books, and libpq sends nothing any more."""
    connection.pgconn.enter_pipeline_mode()
    connection.execute("SELECT 1")


def left_in_a_transaction(connection: Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT no_such_column")


def ended_by_the_server(connection: Connection) -> None:
    connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def cut_off(connection: Connection) -> None:
    with connection.transaction():  # whose end is the end of the limit: a busy server may need it for what comes next
        connection.execute("SET LOCAL statement_timeout = 1")
        connection.execute("SELECT pg_sleep(60)")


@pytest.mark.parametrize(
    ("failure", "is_kept"),
    [(left_in_a_pipeline, False), (left_in_a_transaction, False), (ended_by_the_server, False), (cut_off, True)],
)
def test_a_try_that_fails_is_repeated_on_a_connection_that_can_go_on(
    link: Link, failure: Callable[[Connection], None], *, is_kept: bool
) -> None:
    used: list[Connection] = []

    def once() -> object:
        used.append(link.open())
        if len(used) == 1:
            try:
                failure(used[0])
            except psycopg.ProgrammingError as error:
                raise psycopg.OperationalError(str(error)) from error
        elif len(used) > 3:
            pytest.fail("the same again and again")
        return used[-1].execute("SELECT 1").fetchone()

    assert link.retry(once) == (1,)
    assert len(used) == 2
    assert (used[1] is used[0]) == is_kept
    assert used[0].closed != is_kept
