"""Readings of a whole past straight into the store: for backtests, without broker and without rules.

Every block is one transaction with its cursors' steps, so the books are whole after each: what is stored is booked as class A,
under an epoch of the load's own. It is for a store that has no reading of these series yet. No worker may run beside it: a load
holds the locks of all lanes, because a worker's open rollups and rules would not know of its readings.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from citynet.batch import F64, I32, I64, SeriesBatch
from citynet.errors import CitynetError
from citynet.quality import LATE
from citynet.runtime.settings import DatabaseSettings, load
from citynet.wire import TELEMETRY
from citynet_ingest.cli_db import connect
from citynet_ingest.copybody import days_of
from citynet_ingest.lanes import LANES
from citynet_ingest.ownership import lock
from citynet_ingest.registry import Connection, Registry
from citynet_ingest.store import sql
from citynet_ingest.store.transaction import Partitions, copy_rows
from citynet_ingest.watchdog import Watchdog

_NAMES_AT_ONCE = 5_000
_NEVER = np.iinfo(np.int64).min


class BulkError(CitynetError):
    """The store cannot take this load; says why."""


class BulkStore:
    """One load. `open` it with all its series, then `write` block after block; a series' readings in the order of time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._registry = Registry()
        self._partitions = Partitions()
        self._epoch = secrets.randbits(62) + 1
        self._seq: dict[str, int] = {}
        self._newest: I64 = np.empty(0, np.int64)
        row = connection.execute(sql.text("has_columnstore")).fetchone()
        self._has_columnstore = bool(row and row[0])
        # Blocks need not wait for the disk one by one: `close` does, once.
        connection.execute("SET synchronous_commit = off")

    def open(self, sources: Mapping[str, str]) -> None:
        """Register series ``device/metric``, each with the gateway that it is heard through.

        Raises:
            BulkError: one of them has readings already.
        """
        self._registry.load(self._connection)
        unknown = [name for name in sources if name not in self._registry.ids]
        for first in range(0, len(unknown), _NAMES_AT_ONCE):
            part = unknown[first : first + _NAMES_AT_ONCE]
            self._registry.add(self._connection, {name: sources[name] for name in part})
        ids = [self._registry.ids[name] for name in sources]
        found = self._connection.execute(sql.text("bulk_taken"), {"series": ids}).fetchone()
        if found is not None:
            name = next(name for name in sources if self._registry.ids[name] == found[0])
            raise BulkError(f"{name} has readings in this database; a load needs a store that has none of its series")
        self._newest = np.full(max(ids, default=0) + 1, _NEVER, np.int64)
        self._seq = dict.fromkeys(sources.values(), 0)

    def write(self, names: tuple[str, ...], index: I32, time_us: I64, value: F64, counts: Mapping[str, int]) -> None:
        """Store a block in one transaction: columns of readings, `index` into `names`, and how many are of each gateway."""
        series, quality = self._registry.column(names)[index], np.zeros(len(index), np.uint8)
        is_grouped = bool((series[1:] >= series[:-1]).all())
        group = SeriesBatch if is_grouped else SeriesBatch.group
        rows = group(series, time_us, value, quality)
        self._mark_late(rows)
        self._partitions.ensure(self._connection, days_of(rows))
        with self._connection.transaction():
            copy_rows(self._connection, rows, has_columnstore=self._has_columnstore)
            self._step(counts)
        for gateway, count in counts.items():
            self._seq[gateway] += count

    def close(self) -> None:
        """Returns when all blocks are on disk."""
        self._connection.execute("SET synchronous_commit = on")
        with self._connection.transaction():
            self._connection.execute("SELECT pg_current_xact_id()")

    def _mark_late(self, rows: SeriesBatch) -> None:
        """As ingest does: a reading that is not newer than all of its series before is late (ADR 3)."""
        bounds = [*rows.starts().tolist(), len(rows)]
        for start, end in pairwise(bounds):
            series, times = rows.series[start], rows.time_us[start:end]
            newest = np.maximum.accumulate(np.concatenate([self._newest[series : series + 1], times]))
            rows.quality[start:end][times <= newest[:-1]] |= LATE
            self._newest[series] = newest[-1]

    def _step(self, counts: Mapping[str, int]) -> None:
        gateways = list(counts)
        before, zero = [self._seq[gateway] for gateway in gateways], [0] * len(gateways)
        after = [self._seq[gateway] + counts[gateway] for gateway in gateways]
        moves = {
            "gateways": gateways, "streams": [TELEMETRY] * len(gateways), "epochs": [self._epoch] * len(gateways),
            "before": before, "seqs": after, "stored": [counts[gateway] for gateway in gateways],
            "dead": zero, "lost": zero, "noted": zero, "claimed": after,
        }  # fmt: skip
        if not all(before):
            self._connection.execute(sql.text("cursor_open"), moves)
        if self._connection.execute(sql.text("cursor_step"), moves).rowcount != len(gateways):
            raise BulkError("a cursor of this load was moved by somebody else")
        self._connection.execute(sql.text("gateway_heard"), {"gateways": gateways, "canaries": [None] * len(gateways)})


@contextmanager
def open_bulk(config: Path | None) -> Iterator[BulkStore]:
    """A load into the database that the settings name. CitynetError if there is none, or a worker runs."""
    with connect(load(DatabaseSettings, config)) as connection:
        lock(connection, range(LANES), 0.0, threading.Event(), Watchdog())
        store = BulkStore(connection)
        yield store
        store.close()
