"""Recovery: what a worker knows, read back from the database at a start and after a commit that was refused."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Sequence

import numpy as np

from citynet.batch import SeriesBatch
from citynet_ingest import checkpoint
from citynet_ingest.lanes import lane_of
from citynet_ingest.ownership import Former, as_bytes
from citynet_ingest.state import State
from citynet_ingest.store import sql
from citynet_ingest.store.cursor import read_cursor
from citynet_ingest.store.rollups import reopen, replay, unknown_series
from citynet_ingest.store.transaction import Connection
from citynet_rules.engine import Part, SeriesInfo, Transition

_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_RECENT = dt.timedelta(hours=1)  # without a snapshot conditions older than this start afresh
_ROWS = 100_000
_TIMEOUT = "600s"  # re-reading what the engine missed may take longer than a commit may


def revive(
    connection: Connection, state: State, series: Sequence[SeriesInfo], before: Sequence[Former], lanes: range
) -> tuple[list[Transition], int]:
    """Bring a fresh state to where the database is, for these lanes, from what their former owners left.

    Returns the transitions found, and how many readings were read again.
    """
    for lane, hashes in connection.execute(sql.text("receipts"), {"lanes": list(lanes)}):
        state.receipts[int(str(lane))].load(as_bytes(hashes))
    row = connection.execute(sql.text("broker_counter")).fetchone()
    state.broker_dropped = int(str(row[0])) if row else None
    state.engine.bind(series)
    checkpoint.restore(state, parts_of(before, series, lanes))
    return _catch_up(connection, state, series, lanes)


def parts_of(before: Sequence[Former], series: Sequence[SeriesInfo], lanes: range) -> list[Part]:
    """Of every former claim the series of those of our lanes that it held last.

    A device that moved to another gateway may send through a lane that is not its source's. What the worker of that lane
    knows of its series is in its snapshot as well, and is kept: it was of no lane that the worker had.
    """
    home = np.array([lane_of(info.source) for info in series], np.int64)
    ids = np.array([info.id for info in series], np.int32)
    parts: list[Part] = []
    for former in before:
        if former.state is None:
            continue
        is_stranger = ~np.isin(home, [*former.lanes, *lanes])
        wanted = np.isin(home, list(former.held)) | is_stranger
        sources = frozenset(series[k].source for k in np.flatnonzero(wanted).tolist())
        parts.append(Part(former.state, ids[wanted], sources))
    return parts


def _catch_up(
    connection: Connection, state: State, series: Sequence[SeriesInfo], lanes: range
) -> tuple[list[Transition], int]:
    """Feed engine and rollups what was stored after their snapshot; of series the snapshot does not know, what is recent."""
    known, tips = state.engine.tips()
    tip_of = {sid: tip for sid, tip in zip(known.tolist(), tips.tolist(), strict=True) if tip > 0}
    behind = {sid: _UNIX + dt.timedelta(microseconds=tip) for sid, tip in tip_of.items()}
    unknown = [info.id for info in series if info.id not in tip_of and lane_of(info.source) in lanes]
    floor = dt.datetime.now(dt.UTC) - _RECENT
    unopened = unknown_series(state.rollup, [*behind, *unknown])
    transitions: list[Transition] = []
    reread = 0
    queries: dict[str, dict[str, object]] = {
        "readings_since": {"series": list(behind), "tips": list(behind.values())},
        "readings_recent": {"series": unknown, "floor": floor},
    }
    for name, parameters in queries.items():
        for batch in _blocks(connection, name, parameters):
            transitions += state.engine.feed(batch).transitions
            replay(state.rollup, batch, unopened)
            reread += len(batch)
    state.engine.hear(time.time_ns() // 1000)
    return transitions, reread + reopen(connection, state.rollup, unopened, _blocks)


def _blocks(connection: Connection, name: str, parameters: dict[str, object]) -> Iterator[SeriesBatch]:
    """Rows of a statement that gives readings by series and time, in blocks of bounded memory."""
    if not parameters["series"]:
        return
    with connection.transaction(), read_cursor(connection, "citynet_recovery") as cursor:
        connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'")
        cursor.execute(sql.text(name), parameters)
        while rows := cursor.fetchmany(_ROWS):
            series, time_us, value, quality = zip(*rows, strict=True)
            yield SeriesBatch(
                np.array(series, np.int32),
                np.array(time_us, np.int64),
                np.array(value, np.float64),
                np.array(quality, np.uint8),
            )
