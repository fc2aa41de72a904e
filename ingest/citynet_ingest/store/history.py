"""Stored readings of the past, in blocks of time: what rules are replayed on.

Each block is one statement in a transaction of its own, so that nothing is held up by a replay of hours. The length of a block
follows from how many readings the one before it had; one that turns out too large is given up and halved. While a block is
evaluated the next ones are being read, one on each connection: it is the server that has most to do, and a connection is one
process of it.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import psycopg
from psycopg.sql import SQL, Literal

from citynet.batch import SeriesBatch
from citynet_ingest.registry import Registry
from citynet_ingest.store import sql
from citynet_ingest.store.copyout import cut, readings_of
from citynet_ingest.store.server import Server
from citynet_rules.engine import SeriesInfo
from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.history import Block, Span

Connection = psycopg.Connection[tuple[object, ...]]
READINGS_MAX = 1_500_000  # wanted in a block; 70 bytes each while it is read
STEP_US = 3_600_000_000  # the engine is fed an hour at a time, or a block where that is shorter
_BLOCK_US = (1_000_000, 12 * STEP_US)  # shortest and longest
_FIRST_US = 120_000_000
_READING_BYTES = 16  # on the wire: a time and a value
_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class _TooLargeError(Exception):
    """A block is more than memory is meant to hold."""


class DatabaseHistory:
    """Reads with the connection that it is given, and while `blocks` is iterated with `another` beside it, each from a thread
    of its own."""

    def __init__(
        self,
        connection: Connection,
        server: Server,
        readings_max: int = READINGS_MAX,
        another: Callable[[], AbstractContextManager[Connection]] | None = None,
    ) -> None:
        self._connection = connection
        self._another = another
        self._settings = sql.text(f"history_settings_{server.variant}")
        self._readings_max = readings_max

    def series(self) -> Sequence[SeriesInfo]:
        return Registry().load(self._connection)

    def gateways(self) -> Collection[str]:
        return {str(name) for (name,) in self._connection.execute("SELECT id FROM gateway")}

    def blocks(self, from_us: int, to_us: int) -> Iterator[Block]:
        shortest, longest = _BLOCK_US
        length_us = _FIRST_US
        with ExitStack() as stack:
            readers = _Readers(stack, self._read, [self._connection, *self._more(stack)])
            readers.fill(from_us, to_us, length_us)
            while readers.coming:
                block = readers.coming.popleft()
                try:
                    batch = block.read.result()
                except _TooLargeError:
                    readers.give_up()
                    length_us = max(shortest, length_us // 2)
                    readers.fill(block.from_us, to_us, length_us)
                    continue
                wanted = (block.to_us - block.from_us) * self._readings_max // max(1, len(batch))
                length_us = min(max(wanted, shortest), 4 * length_us, longest)
                readers.fill(readers.until_us, to_us, length_us)
                yield from _steps(batch, block.from_us, block.to_us)

    def _more(self, stack: ExitStack) -> list[Connection]:
        return [] if self._another is None else [stack.enter_context(self._another())]

    def alerts(self, span: Span, rules: Collection[str] | None) -> list[Alert]:
        """Alerts that were in force within the span, warm-up included; of these rules, or of all."""
        asked = {
            "from_at": moment(span.start_us),
            "to_at": moment(span.to_us),
            "rules": None if rules is None else [*rules],
        }
        return [Alert(*row) for row in self._connection.execute(sql.text("alert_spans"), asked).fetchall()]  # type: ignore[arg-type]

    def _read(self, connection: Connection, from_us: int, to_us: int) -> SeriesBatch:
        """One block. _TooLargeError unless it is as short as blocks can be."""
        bytes_max = 2 * self._readings_max * _READING_BYTES if to_us - from_us > _BLOCK_US[0] else None
        statement = SQL(sql.text("history_block").decode()).format(
            from_at=Literal(moment(from_us)), to_at=Literal(moment(to_us))
        )
        body = bytearray()
        with connection.transaction():
            connection.execute(self._settings)
            with connection.cursor().copy(statement) as copy:
                for piece in copy:
                    body += piece
                    if bytes_max is not None and len(body) > bytes_max:
                        raise _TooLargeError
        return readings_of(body)


class _Coming(NamedTuple):
    """A block that is being read."""

    from_us: int
    to_us: int
    read: Future[SeriesBatch]


class _Readers:
    """Blocks being read, in the order of time, one on each connection."""

    def __init__(
        self, stack: ExitStack, read: Callable[[Connection, int, int], SeriesBatch], connections: Sequence[Connection]
    ) -> None:
        self._pool = stack.enter_context(ThreadPoolExecutor(len(connections), "history"))
        self._read = read
        self._idle = SimpleQueue[Connection]()
        for connection in connections:
            self._idle.put(connection)
        self._count = len(connections)
        self.coming: deque[_Coming] = deque()
        self.until_us = 0  # where the newest of them ends

    def fill(self, from_us: int, to_us: int, length_us: int) -> None:
        """Have blocks read from there on, until every connection has one."""
        while from_us < to_us and len(self.coming) < self._count:
            self.until_us = min(from_us + length_us, to_us)
            read = self._pool.submit(self._with_idle, from_us, self.until_us)
            self.coming.append(_Coming(from_us, self.until_us, read))
            from_us = self.until_us

    def give_up(self) -> None:
        """Forget what is being read, once it is."""
        wait([block.read for block in self.coming])
        self.coming.clear()

    def _with_idle(self, from_us: int, to_us: int) -> SeriesBatch:
        connection = self._idle.get()
        try:
            return self._read(connection, from_us, to_us)
        finally:
            self._idle.put(connection)


def moment(time_us: int) -> dt.datetime:
    """µs since 1970 as a point in time."""
    return _UNIX + dt.timedelta(microseconds=time_us)


def _steps(batch: SeriesBatch, from_us: int, to_us: int) -> Iterator[Block]:
    """A block in steps, so that watermarks move as often whatever the blocks are like."""
    edges = np.arange(from_us - from_us % STEP_US + STEP_US, to_us, STEP_US, dtype=np.int64)
    for piece, until_us in zip(cut(batch, edges), [*edges.tolist(), to_us], strict=True):
        yield Block(piece, until_us)
