"""Names to series ids. What is heard of for the first time is registered by itself, marked as unregistered."""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern

import numpy as np
import psycopg

from citynet.batch import I32
from citynet_ingest.store import sql
from citynet_rules.engine import SeriesInfo

_COLUMNS_REMEMBERED = 4096
Connection = psycopg.Connection[tuple[object, ...]]


class Registry:
    """All series of the database, by name ``device/metric``. Grows; 200,000 series take about 40 MB."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self._columns: dict[tuple[str, ...], I32] = {}

    def load(self, connection: Connection) -> list[SeriesInfo]:
        """Read all series. Returns them for the rules engine."""
        self.ids.clear()
        return self._remember(connection.execute(sql.text("series_all")).fetchall())

    def missing(self, wanted: Iterable[tuple[tuple[str, ...], str]]) -> dict[str, str]:
        """Of (names, source) pairs the names that are not known yet, with their source."""
        unseen = ((names, source) for names, source in wanted if names not in self._columns)
        return {name: source for names, source in unseen for name in names if name not in self.ids}

    def add(self, connection: Connection, unknown: dict[str, str]) -> list[SeriesInfo]:
        """Register names first heard of, through `source`. Safe against other workers that do the same."""
        names = sorted(unknown)
        devices = [name.partition("/")[0] for name in names]
        metrics = [name.partition("/")[2] for name in names]
        with connection.transaction():
            connection.execute(sql.text("device_add"), {"names": devices, "sources": [unknown[name] for name in names]})
            connection.execute(sql.text("series_add"), {"devices": devices, "metrics": metrics})
            rows = connection.execute(sql.text("series_find"), {"devices": devices, "metrics": metrics}).fetchall()
        return self._remember(rows)

    def column(self, names: tuple[str, ...]) -> I32:
        """Series ids of these names, all of them known. Remembered: a gateway sends the same names batch after batch."""
        found = self._columns.get(names)
        if found is None:
            if len(self._columns) >= _COLUMNS_REMEMBERED:
                self._columns.clear()
            ids = self.ids
            found = self._columns[names] = np.array([ids[name] for name in names], np.int32)
        return found

    def _remember(self, rows: list[tuple[object, ...]]) -> list[SeriesInfo]:
        found = [  # a device, a metric, a source each stand in many rows: one string of each is enough
            SeriesInfo(int(str(sid)), intern(str(device)), intern(str(metric)), intern(str(source)))
            for sid, device, metric, source in rows
        ]
        self.ids.update((f"{info.device}/{info.metric}", info.id) for info in found)
        return found
