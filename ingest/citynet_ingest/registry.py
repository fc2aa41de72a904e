"""Names to series ids. What is heard of for the first time is registered by itself, marked as unregistered."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from citynet_ingest.store import sql
from citynet_rules.engine import SeriesInfo

Connection = psycopg.Connection[tuple[object, ...]]


class Registry:
    """All series of the database, by name ``device/metric``. Grows; 200,000 series take about 40 MB."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def load(self, connection: Connection) -> list[SeriesInfo]:
        """Read all series. Returns them for the rules engine."""
        self.ids.clear()
        return self._remember(connection.execute(sql.text("series_all")).fetchall())

    def missing(self, wanted: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Of (name, source) pairs those that are not known yet, as name to source."""
        return {name: source for name, source in wanted if name not in self.ids}

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

    def _remember(self, rows: list[tuple[object, ...]]) -> list[SeriesInfo]:
        found = [
            SeriesInfo(int(str(sid)), str(device), str(metric), str(source)) for sid, device, metric, source in rows
        ]
        self.ids.update((f"{info.device}/{info.metric}", info.id) for info in found)
        return found
