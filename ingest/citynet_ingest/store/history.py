"""Stored readings of the past, in blocks of time: what rules are replayed on.

Each block is one statement in a transaction of its own, so that nothing is held up by a replay of hours. The length of a block
follows from how many readings the one before it had; one that turns out too large is given up and halved. While a block is
evaluated the next one is being read.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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
    """Reads with the connection that it is given, from a thread of its own while `blocks` is iterated."""

    def __init__(self, connection: Connection, server: Server, readings_max: int = READINGS_MAX) -> None:
        self._connection = connection
        self._settings = sql.text(f"history_settings_{server.variant}")
        self._readings_max = readings_max

    def series(self) -> Sequence[SeriesInfo]:
        return Registry().load(self._connection)

    def gateways(self) -> Collection[str]:
        return {str(name) for (name,) in self._connection.execute("SELECT id FROM gateway")}

    def blocks(self, from_us: int, to_us: int) -> Iterator[Block]:
        shortest, longest = _BLOCK_US
        length_us = _FIRST_US
        with ThreadPoolExecutor(1, "history") as reader:

            def begin(at_us: int) -> Future[SeriesBatch] | None:
                return reader.submit(self._read, at_us, min(at_us + length_us, to_us)) if at_us < to_us else None

            at_us, coming = from_us, begin(from_us)
            while coming is not None:
                end_us = min(at_us + length_us, to_us)
                try:
                    batch = coming.result()
                except _TooLargeError:
                    length_us = max(shortest, length_us // 2)
                    coming = begin(at_us)
                    continue
                wanted = length_us * self._readings_max // max(1, len(batch))
                length_us = min(max(wanted, shortest), 4 * length_us, longest)
                started_us, at_us, coming = at_us, end_us, begin(end_us)
                yield from _steps(batch, started_us, end_us)

    def alerts(self, span: Span, rules: Collection[str] | None) -> list[Alert]:
        """Alerts that were in force within the span, warm-up included; of these rules, or of all."""
        asked = {
            "from_at": moment(span.start_us),
            "to_at": moment(span.to_us),
            "rules": None if rules is None else [*rules],
        }
        return [Alert(*row) for row in self._connection.execute(sql.text("alert_spans"), asked).fetchall()]  # type: ignore[arg-type]

    def _read(self, from_us: int, to_us: int) -> SeriesBatch:
        """One block. _TooLargeError unless it is as short as blocks can be."""
        bytes_max = 2 * self._readings_max * _READING_BYTES if to_us - from_us > _BLOCK_US[0] else None
        statement = SQL(sql.text("history_block").decode()).format(
            from_at=Literal(moment(from_us)), to_at=Literal(moment(to_us))
        )
        body = bytearray()
        with self._connection.transaction():
            self._connection.execute(self._settings)
            with self._connection.cursor().copy(statement) as copy:
                for piece in copy:
                    body += piece
                    if bytes_max is not None and len(body) > bytes_max:
                        raise _TooLargeError
        return readings_of(body)


def moment(time_us: int) -> dt.datetime:
    """µs since 1970 as a point in time."""
    return _UNIX + dt.timedelta(microseconds=time_us)


def _steps(batch: SeriesBatch, from_us: int, to_us: int) -> Iterator[Block]:
    """A block in steps, so that watermarks move as often whatever the blocks are like."""
    edges = np.arange(from_us - from_us % STEP_US + STEP_US, to_us, STEP_US, dtype=np.int64)
    for piece, until_us in zip(cut(batch, edges), [*edges.tolist(), to_us], strict=True):
        yield Block(piece, until_us)
