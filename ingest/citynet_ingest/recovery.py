"""Recovery: what a worker knows, read back from the database at a start and after a commit that was refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import numpy as np

from citynet.batch import SeriesBatch
from citynet.ids import shard_of
from citynet_ingest.store import sql
from citynet_ingest.store.transaction import Connection
from citynet_rules.engine import Engine, SeriesInfo, Transition

_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_RECENT = dt.timedelta(hours=1)  # without a snapshot conditions older than this start afresh
_ROWS = 100_000
_TIMEOUT = "600s"  # re-reading what the engine missed may take longer than a commit may


def catch_up(
    connection: Connection, engine: Engine, series: Sequence[SeriesInfo], shards: range
) -> tuple[list[Transition], int]:
    """Feed the engine what was stored after its snapshot; of series the snapshot does not know, what is recent.

    Returns the transitions found, and how many readings were read again.
    """
    known, tips = engine.tips()
    tip_of = {sid: tip for sid, tip in zip(known.tolist(), tips.tolist(), strict=True) if tip > 0}
    ours = [info.id for info in series if shard_of(info.source) in shards]
    behind = {sid: _UNIX + dt.timedelta(microseconds=tip_of[sid]) for sid in ours if sid in tip_of}
    floor = dt.datetime.now(dt.UTC) - _RECENT
    transitions: list[Transition] = []
    reread = 0
    for name, parameters in (
        ("readings_since", {"series": list(behind), "tips": list(behind.values())}),
        ("readings_recent", {"series": [sid for sid in ours if sid not in tip_of], "floor": floor}),
    ):
        for batch in _blocks(connection, name, parameters):
            transitions += engine.feed(batch).transitions
            reread += len(batch)
    return transitions, reread


def _blocks(connection: Connection, name: str, parameters: dict[str, object]) -> Iterator[SeriesBatch]:
    """Rows of a statement that gives readings by series and time, in blocks of bounded memory."""
    if not parameters["series"]:
        return
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'")
        with connection.cursor(name="citynet_recovery", binary=True) as cursor:
            cursor.execute(sql.text(name), parameters)
            while rows := cursor.fetchmany(_ROWS):
                series, time_us, value, quality = zip(*rows, strict=True)
                yield SeriesBatch(
                    np.array(series, np.int32),
                    np.array(time_us, np.int64),
                    np.array(value, np.float64),
                    np.array(quality, np.uint8),
                )


def as_bytes(value: object) -> bytes:
    """A bytea column."""
    assert isinstance(value, bytes | memoryview)  # noqa: S101
    return bytes(value)
