"""Where a labelled city comes from. The simulator registers itself (entry point ``citynet.rehearsals``), so that this room
knows of no simulator; what it stages is told by the header of its truth file (docs/truth-file.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet_rules.engine import SeriesInfo
from citynet_rules.proof.history import Block
from citynet_rules.rule import level_of

GROUP = "citynet.rehearsals"
EVENT, SENSOR, TRANSPORT = "event", "sensor", "transport"
_DECAYS = 4.0  # after four time constants 2 % of an effect are left


class Rehearsal(Protocol):
    """One run of a scenario in [start_us, end_us), µs since 1970; the city was there before. Series are numbered from 1 in the
    header's order of devices and series."""

    @property
    def header(self) -> Mapping[str, Any]: ...

    @property
    def start_us(self) -> int: ...

    @property
    def end_us(self) -> int: ...

    def blocks(self, from_us: int, to_us: int) -> Iterable[tuple[SeriesBatch, int]]:
        """Readings by series in the order of their arrival, and the moment at which each block ends."""
        ...


class Stager(Protocol):
    """The module that the entry point names."""

    def names(self) -> list[str]:
        """The scenarios that ship."""
        ...

    def rule_files(self) -> list[Path]:
        """What the city sets for itself: overrides of shipped rules."""
        ...

    def stage(
        self, name: str, *, seed: int, duration_s: float | None, population: int, every_s: float
    ) -> Rehearsal: ...


def stager() -> Stager:
    """The simulator. CitynetError where none is installed."""
    for point in entry_points(group=GROUP):
        try:
            found: Stager = point.load()
        except ModuleNotFoundError as error:
            raise CitynetError(f"this needs {error.name}: pip install 'citynet[sim]'") from None
        return found
    raise CitynetError("this needs the simulator: pip install 'citynet[sim]'")


@dataclass(frozen=True, slots=True)
class Staged:
    """One thing that was staged: `layer` event, sensor or transport; in [start_us, over_us] it can be seen. `level` (1 blue
    .. 4 red) is the colour that is right at each of `devices`, 0 where no alert is. Weather names no devices, but perhaps a
    `district`; transport faults name `gateways`."""

    id: str
    kind: str
    layer: str
    domain: str
    metric: str
    devices: tuple[str, ...]
    gateways: tuple[str, ...]
    district: str
    start_us: int
    over_us: int
    level: int
    rains: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A device: what it is, where it stands, and what it measures."""

    kind: str
    district: str
    gateway: str
    metrics: tuple[str, ...]


class StagedHistory:
    """A rehearsal as history. `peeks` are told every block's readings."""

    def __init__(self, rehearsal: Rehearsal, extremes: Extremes) -> None:
        self._rehearsal = rehearsal
        self._extremes = extremes
        self._series = series_of(rehearsal.header)

    def series(self) -> Sequence[SeriesInfo]:
        return self._series

    def gateways(self) -> Collection[str]:
        return frozenset(map(str, self._rehearsal.header["gateways"]))

    def blocks(self, from_us: int, to_us: int) -> Iterator[Block]:
        for batch, until_us in self._rehearsal.blocks(from_us, to_us):
            self._extremes.take(batch)
            yield Block(batch, until_us)


class Extremes:
    """The lowest and highest reading of the series of what is staged, while it can be seen: why an alert did not come."""

    def __init__(self, header: Mapping[str, Any], staged: Sequence[Staged]) -> None:
        ids: dict[str, list[tuple[str, int]]] = {}
        for info in series_of(header):
            ids.setdefault(info.device, []).append((info.metric, info.id))
        self._watched = [
            (one.id, device, metric, ident, one.start_us, one.over_us)
            for one in staged
            if one.layer == EVENT and one.level
            for device in one.devices
            for metric, ident in ids.get(device, ())
        ]
        self._found: dict[tuple[str, str, str], tuple[float, float]] = {}

    def take(self, batch: SeriesBatch) -> None:
        """Note what stands in a block."""
        if not len(batch):
            return
        oldest, newest = int(batch.time_us.min()), int(batch.time_us.max())
        for incident, device, metric, ident, start_us, over_us in self._watched:
            if newest < start_us or oldest > over_us:
                continue
            first, last = batch.series.searchsorted([ident, ident + 1])
            time_us, value = batch.time_us[first:last], batch.value[first:last]
            seen = value[(time_us >= start_us) & (time_us <= over_us)]
            if len(seen):
                key = incident, device, metric
                low, high = self._found.get(key, (float("inf"), float("-inf")))
                self._found[key] = min(low, float(seen.min())), max(high, float(seen.max()))

    def of(self, incident: str, device: str, metric: str) -> tuple[float, float] | None:
        """(lowest, highest) reading, or None if there was none."""
        return self._found.get((incident, device, metric))


def series_of(header: Mapping[str, Any]) -> list[SeriesInfo]:
    """The header's series, numbered from 1."""
    named = [
        (str(item["device"]), str(entry["metric"]), str(item["gateway"]))
        for item in header["devices"]
        for entry in item["series"]
    ]
    return [SeriesInfo(n, *names) for n, names in enumerate(named, start=1)]


def places_of(header: Mapping[str, Any]) -> dict[str, Place]:
    """The header's devices by name."""
    return {
        str(item["device"]): Place(
            str(item["kind"]),
            str(item["district"]),
            str(item["gateway"]),
            tuple(str(entry["metric"]) for entry in item["series"]),
        )
        for item in header["devices"]
    }


def staged_of(header: Mapping[str, Any]) -> list[Staged]:
    """Everything that the header says was staged."""
    return [
        Staged(
            id=str(item["id"]),
            kind=str(item["kind"]),
            layer=str(item["layer"]),
            domain=str(item["domain"]),
            metric=str(item["metric"]),
            devices=tuple(map(str, item["devices"])),
            gateways=tuple(map(str, item["gateways"])),
            district=str(item["district"]),
            start_us=int(item["start_us"]),
            over_us=int(item["end_us"]) + round(_DECAYS * float(item["decay_s"]) * 1e6),
            level=level_of(item["expected_level"]) if item["expected_level"] else 0,
            rains=float(item["rain_mm_h"]) > 0.0,
        )
        for item in header["faults"]
    ]
