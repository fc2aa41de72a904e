"""Scenarios: readable files that say when the weather does what and what goes wrong where (docs/scenarios.md).

Those of the package lie in `scenarios/`; any other file is given by its path. A file is checked as a whole, and against the
city when its faults are placed; every mistake is one line that names file and key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from citynet.errors import ConfigError
from citynet_sim import catalogue
from citynet_sim import city as layout
from citynet_sim.catalogue import CATALOGUE, FaultKind
from citynet_sim.city import City, Device
from citynet_sim.city_files import CityFiles
from citynet_sim.faults import EVENT, LEAK, SENSOR, TRANSPORT, Fault
from citynet_sim.inp import PIPE
from citynet_sim.kinds import KINDS
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import uniforms
from citynet_sim.weather import CLIMATES

YEAR_DAYS = 365.25
FAULTS_MAX = 10_000  # of one run
_LEVELS = ("blue", "yellow", "orange", "red")

Seconds = Annotated[float, Field(ge=0.0, le=31_622_400.0)]


class _Entry(BaseModel):
    """What is common to everything that a scenario brings about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(description="see `citynet sim faults`")
    peak: float | None = Field(None, allow_inf_nan=False)
    rise_s: Seconds | None = Field(None, gt=0.0)
    hold_s: Seconds | None = None
    decay_s: Seconds | None = Field(None, gt=0.0)
    device: str | None = None
    device_kind: str | None = None
    place: str | None = None
    district: str | None = None
    metric: str | None = None
    gateway: str | None = None
    pipe: str | None = Field(None, max_length=64)
    cause: str | None = Field(None, max_length=200)
    expected_level: str | None = None

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(value, tuple(CATALOGUE))

    @field_validator("place")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        return None if value is None else _one_of(value, catalogue.PLACES)

    @field_validator("device_kind")
    @classmethod
    def _device_kind(cls, value: str | None) -> str | None:
        return None if value is None else _one_of(value, tuple(KINDS))

    @field_validator("expected_level")
    @classmethod
    def _level(cls, value: str | None) -> str | None:
        return None if value is None else _one_of(value, _LEVELS)


class FaultEntry(_Entry):
    """A fault at a time: `at_s` seconds after the run's start."""

    at_s: Seconds
    rain_mm_h: float | None = Field(None, ge=0.0, le=400.0)


class DrawEntry(_Entry):
    """Faults drawn at a rate, in every device (or gateway) by itself."""

    per_year: float = Field(gt=0.0, le=365.0)


class ScenarioFile(BaseModel, extra="forbid", frozen=True):
    """A scenario as its file says it."""

    about: str = Field(min_length=1, max_length=200)
    start: datetime | None = None
    duration_s: float = Field(default=3600.0, gt=0.0, le=31_622_400.0)
    climate: str | None = None
    city: CityFiles | None = None
    weather: list[FaultEntry] = Field(default_factory=list)
    fault: list[FaultEntry] = Field(default_factory=list)
    draw: list[DrawEntry] = Field(default_factory=list)

    @field_validator("climate")
    @classmethod
    def _climate(cls, value: str | None) -> str | None:
        return None if value is None else _one_of(value, tuple(CLIMATES))

    @field_validator("start")
    @classmethod
    def _zoned(cls, value: datetime | None) -> datetime | None:
        if value is not None and (value.tzinfo is None or value < datetime(1970, 1, 2, tzinfo=UTC)):
            raise ValueError("needs a time zone and a date after 1970")
        return value


_LISTS: dict[str, type[FaultEntry] | type[DrawEntry]] = {"weather": FaultEntry, "fault": FaultEntry, "draw": DrawEntry}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario: its name, where it was read, what it says. `entries` names each of its entries: ``fault[0]``."""

    name: str
    source: str
    file: ScenarioFile
    entries: tuple[tuple[str, FaultEntry | DrawEntry], ...]

    @property
    def start_us(self) -> int | None:
        """When the run starts if nobody says otherwise, µs since 1970."""
        return None if self.file.start is None else round(self.file.start.timestamp() * 1e3) * 1000


class ScenarioError(ConfigError):
    """Mistakes of a file; `sound` is what can be understood of it, None if its city cannot."""

    def __init__(self, problems: list[str], sound: Scenario | None) -> None:
        super().__init__(problems)
        self.sound = sound


def shipped() -> dict[str, Scenario]:
    """The scenarios of the package by name, `demo` first."""
    found = {}
    for item in resources.files("citynet_sim").joinpath("scenarios").iterdir():
        if item.name.endswith(".toml"):
            name = item.name.removesuffix(".toml")
            found[name] = parse(name, item.name, item.read_text("utf-8"))
    return dict(sorted(found.items(), key=lambda pair: (pair[0] != "demo", pair[0])))


def find(name: str) -> Scenario:
    """The shipped scenario of that name, or the file at that path.

    Raises:
        ConfigError: no such scenario or file, or every mistake in it, one line each.
    """
    if name.endswith(".toml"):
        try:
            return parse(Path(name).stem, name, Path(name).read_text("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ConfigError([f"{name}: is no text in UTF-8 (byte {error.start})"]) from None
        except OSError as error:
            raise ConfigError([f"{name}: {error.strerror}"]) from None
    known = shipped()
    if name not in known:
        raise ConfigError([f"scenario {name[:80]!r}: unknown (known: {', '.join(known)}; or the path of a .toml file)"])
    return known[name]


def parse(name: str, source: str, text: str) -> Scenario:
    """Read a scenario.

    Raises:
        ConfigError: every mistake, one line each; a ScenarioError where the rest can be looked at as well.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{source}: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{source}: nested too deeply"]) from None
    entries = _sound_entries(document)
    problems: list[str] = []
    spoilt: set[str] = set()
    try:
        file = ScenarioFile.model_validate(document)
    except ValidationError as error:
        problems = [f"{_where(item['loc'])}: {_words(item)}" for item in error.errors()]
        spoilt = {str(item["loc"][0]) for item in error.errors()}
        rest = {key: value for key, value in document.items() if key not in spoilt | set(_LISTS)}
        file = ScenarioFile.model_validate({"about": "mistakes", **rest})
    for where, entry in entries:
        key = where.partition("[")[0]
        problems += [f"{where}.{name}: {message}" for name, message in _misplaced(entry, key)]
        if isinstance(entry, FaultEntry) and "duration_s" in file.model_fields_set and entry.at_s >= file.duration_s:
            problems.append(f"{where}.at_s: the run has ended by then (duration_s is {file.duration_s:g})")
    scenario = Scenario(name, source, file, entries)
    if problems:
        raise ScenarioError([f"{source}: {problem}" for problem in problems], None if "city" in spoilt else scenario)
    return scenario


def _sound_entries(document: dict[str, Any]) -> tuple[tuple[str, FaultEntry | DrawEntry], ...]:
    """The entries that have no mistake of their own, each with its name."""
    found: list[tuple[str, FaultEntry | DrawEntry]] = []
    for key, model in _LISTS.items():
        rows = document.get(key)
        for number, row in enumerate(rows if isinstance(rows, list) else []):
            with suppress(ValidationError):
                found.append((f"{key}[{number}]", model.model_validate(row)))
    return tuple(found)


def _misplaced(entry: FaultEntry | DrawEntry, key: str) -> list[tuple[str, str]]:
    """What is wrong with an entry as a whole: keys that say nothing for this kind, or that it needs."""
    kind, is_drawn = CATALOGUE[entry.kind], key == "draw"
    found: list[tuple[str, str]] = []
    if message := _wrong_list(kind, key):
        found.append(("kind", message))
    if entry.peak is not None and not kind.low <= entry.peak <= kind.high:
        found.append(("peak", f"{entry.peak:g} is not in {kind.low:g} to {kind.high:g} ({kind.unit})"))
    if kind.layer != TRANSPORT and entry.gateway is not None:
        found.append(("gateway", f"{kind.name!r} does not act upon a gateway"))
    if kind.layer != SENSOR and entry.metric is not None:
        found.append(("metric", f"{kind.name!r} acts upon {kind.channel or 'messages'}"))
    if kind.layer == SENSOR and entry.device is None and entry.device_kind is None:
        found.append(("device", f"{kind.name!r} needs a device or a device_kind"))
    if kind.layer == EVENT and entry.device_kind not in (None, kind.device_kind):
        found.append(("device_kind", f"{kind.name!r} happens to {kind.device_kind or 'the weather'}"))
    if entry.pipe is not None and kind.channel != LEAK:
        found.append(("pipe", f"{kind.name!r} does not happen to a pipe"))
    if entry.pipe is not None and (entry.device is not None or is_drawn):
        found.append(("pipe", "says where; not together with a device, and not where faults are drawn"))
    return found + _nowhere(entry, kind, is_drawn=is_drawn)


def _wrong_list(kind: FaultKind, key: str) -> str:
    """Why a kind has no place in a list; empty: it has."""
    is_weather = kind.domain == "weather"
    if key == "draw":
        return f"{kind.name!r} cannot be drawn: weather comes by itself, or is staged" if is_weather else ""
    wanted = "weather" if is_weather else "fault"
    return "" if key == wanted else f"{kind.name!r} belongs under [[{wanted}]]"


def _nowhere(entry: _Entry, kind: FaultKind, *, is_drawn: bool) -> list[tuple[str, str]]:
    """Keys that say where, and would not be heard."""
    if is_drawn:
        told = [key for key in ("device", "place", "district") if getattr(entry, key) is not None]
        return [(key, "what is drawn falls on every device of its kind alike") for key in told]
    if kind.layer == TRANSPORT:
        deaf, words = ["device", "device_kind", "place", "district"], f"{kind.name!r} acts upon a gateway"
    elif kind.where == catalogue.EVERYWHERE:
        deaf, words = ["device", "place"], f"{kind.name!r} is everywhere, or in a district"
    elif entry.device is not None:
        deaf, words = ["place", "district"], "not together with a device"
    else:
        return []
    return [(key, words) for key in deaf if getattr(entry, key) is not None]


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value[:60]!r} is unknown (known: {', '.join(known)})")
    return value


def _where(place: tuple[int | str, ...]) -> str:
    text = ""
    for part in place:
        word = str(part)[:60]
        word = word if word.isprintable() else repr(word)
        text += f"[{part}]" if isinstance(part, int) else f".{word}" if text else word
    return text or "file"


def _words(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] in ("missing", "extra_forbidden", "value_error"):
        return message
    return f"{message} (got {str(item.get('input'))[:60]!r})"


# --- placing ---------------------------------------------------------------------------------------------------------


def schedule(scenario: Scenario, city: City, origin_us: int, horizon_s: float) -> tuple[Fault, ...]:
    """The scenario's faults in this city, for a run that starts at `origin_us` (µs since 1970), drawn ones for `horizon_s`.

    A fault whose kind of device the city does not have is left out.

    Raises:
        ConfigError: a device, gateway, district or metric that the city does not have; every one, one line each.
    """
    placing = _Placing(scenario.source, city)
    found: list[Fault] = []
    for where, entry in scenario.entries:
        if isinstance(entry, DrawEntry):
            found += placing.drawn(where, entry, origin_us, horizon_s)
        else:
            fault = placing.fault(where, entry, origin_us + round(entry.at_s * 1e6))
            found += [fault] if fault is not None else []
    if len(found) > FAULTS_MAX:
        placing.problems.append(
            f"{scenario.source}: draw: {len(found)} faults in this run, at most {FAULTS_MAX} are possible"
        )
    if placing.problems:
        raise ConfigError(placing.problems)
    return tuple(found)


class _Placing:
    """Turns entries into faults of a city; collects what cannot be placed."""

    def __init__(self, source: str, city: City) -> None:
        self.problems: list[str] = []
        self._source = source
        self._city = city
        self._by_name = {device.name: device for device in city.devices}
        self._numbers: dict[str, int] = {}

    def fault(self, where: str, entry: FaultEntry, start_us: int) -> Fault | None:
        """The fault of an entry, or None where the city has nothing for it, or it cannot be placed."""
        kind, known = CATALOGUE[entry.kind], len(self.problems)
        if kind.layer == TRANSPORT:
            gateways = self._gateways(where, entry)
            return self._make(entry, start_us, (), gateways, "", entry.rain_mm_h)
        if kind.where == catalogue.EVERYWHERE:
            district = self._district(where, entry)
            return self._make(entry, start_us, (), (), district, entry.rain_mm_h)
        struck = self._struck(where, entry, kind)
        if not struck or len(self.problems) > known:
            return None
        return self._make(entry, start_us, tuple(struck), (), struck[0].district, entry.rain_mm_h)

    def drawn(self, where: str, entry: DrawEntry, origin_us: int, horizon_s: float) -> list[Fault]:
        """Faults that start on a day in a device with the probability that the rate says, drawn by day and device."""
        kind = CATALOGUE[entry.kind]
        found: list[Fault] = []
        first_day, last_day = int(origin_us / 1e6 // DAY_S), int((origin_us / 1e6 + horizon_s) // DAY_S)
        of_kind = entry.device_kind or kind.device_kind
        if entry.metric is not None and entry.metric not in [metric.name for metric in KINDS[of_kind].metrics]:
            self._wrong(where, "metric", f"{entry.metric[:60]!r} is not measured by a {of_kind}")
            return []
        targets = (
            self._gateways(where, entry)
            if kind.layer == TRANSPORT
            else tuple(d.name for d in self._city.of_kind(of_kind))
        )
        for name in targets:
            for day in range(first_day, last_day + 1):
                u = uniforms(self._city.seed, f"draw/{where}/{entry.kind}/{name}", day, 2)
                start_us = round((day + float(u[1])) * DAY_S * 1e3) * 1000
                if u[0] >= entry.per_year / YEAR_DAYS or not origin_us <= start_us < origin_us + horizon_s * 1e6:
                    continue
                if kind.layer == TRANSPORT:
                    found.append(self._make(entry, start_us, (), (name,), "", None))
                else:
                    device = self._by_name[name]
                    found.append(self._make(entry, start_us, (device,), (), device.district, None))
        return found

    def _make(
        self, entry: _Entry, start_us: int, struck: Sequence[Device], gateways: tuple[str, ...], district: str,
        rain_mm_h: float | None,
    ) -> Fault:  # fmt: skip
        kind = CATALOGUE[entry.kind]
        self._numbers[kind.name] = self._numbers.get(kind.name, 0) + 1
        peak = kind.peak if entry.peak is None else entry.peak
        shares = kind.spread if len(struck) == len(kind.spread) else (1.0,) * max(len(struck), 1)
        metric = entry.metric or kind.metric or (struck[0].metrics[0].name if struck else "")
        rise_s, hold_s, decay_s = (
            usual if own is None else own
            for own, usual in ((entry.rise_s, kind.rise_s), (entry.hold_s, kind.hold_s), (entry.decay_s, kind.decay_s))
        )
        if kind.layer != EVENT:
            rise_s = 0.0
        rain = peak if kind.channel == "rain" else kind.rain_mm_h if rain_mm_h is None else rain_mm_h
        return Fault(
            f"{kind.name}-{self._numbers[kind.name]}", kind.layer, kind.name, kind.domain,
            metric if kind.layer == SENSOR else kind.channel, metric, tuple(d.name for d in struck),
            tuple(round(peak * share, 3) for share in shares), district, start_us,
            start_us + round((rise_s + hold_s) * 1e6), max(rise_s, 1e-3), decay_s, entry.cause or kind.about,
            kind.rule, entry.expected_level or kind.level, rain, gateways, entry.pipe or "",
        )  # fmt: skip

    def _gateways(self, where: str, entry: _Entry) -> tuple[str, ...]:
        known = self._city.parameters.gateways
        if entry.gateway is None:
            return known
        if entry.gateway not in known:
            self._wrong(where, "gateway", f"{entry.gateway[:60]!r} is not a gateway of this city ({', '.join(known)})")
        return (entry.gateway,)

    def _district(self, where: str, entry: _Entry) -> str:
        if entry.district is None:
            return ""
        if entry.district not in self._city.districts:
            known = ", ".join(self._city.districts)
            self._wrong(where, "district", f"{entry.district[:60]!r} is not a district of this city ({known})")
        return entry.district

    def _struck(self, where: str, entry: _Entry, kind: FaultKind) -> list[Device]:
        """The devices that a fault touches, its origin first."""
        if entry.pipe is not None:
            return self._at_pipe(where, entry.pipe)
        place = entry.place or kind.where
        of_kind = entry.device_kind or kind.device_kind
        if entry.device is not None:
            origin = self._by_name.get(entry.device)
            if origin is None:
                self._wrong(where, "device", f"{entry.device[:60]!r} is not a device of this city")
                return []
            if kind.device_kind and origin.kind != kind.device_kind:
                self._wrong(
                    where,
                    "device",
                    f"{entry.device!r} is a {origin.kind}; {kind.name!r} happens to a {kind.device_kind}",
                )
        else:
            self._district(where, entry)
            candidates = [d for d in self._city.of_kind(of_kind) if entry.district in (None, d.district)]
            if place == catalogue.ALL:
                return candidates
            choose = {catalogue.LOWEST: layout.lowest_of, catalogue.FIRST: layout.first_of}.get(
                place, layout.central_of
            )
            origin = choose(candidates)
        if origin is None:
            return []
        if entry.metric is not None and entry.metric not in [metric.name for metric in origin.metrics]:
            self._wrong(where, "metric", f"{entry.metric[:60]!r} is not measured by a {origin.kind}")
        struck = [origin, *self._city.nearest(origin, len(kind.spread) - 1)]
        return struck if len(struck) == len(kind.spread) or len(kind.spread) == 1 else struck[:1]

    def _at_pipe(self, where: str, pipe: str) -> list[Device]:
        """The meter of the district that a pipe of the network lies in."""
        survey = self._city.survey
        if survey is None or survey.network is None or survey.metering is None:
            self._wrong(where, "pipe", "pipes have names only in a network from an .inp file")
            return []
        link = survey.network.links.get(pipe)
        if link is None or link.kind != PIPE:
            self._wrong(where, "pipe", f"{pipe[:60]!r} is not a pipe of {survey.network.path}")
            return []
        meter = survey.metering.meter_at(pipe)
        if meter is None:
            self._wrong(where, "pipe", f"{pipe!r} joins tanks and reservoirs only; no meter is behind it")
            return []
        return [self._by_name[meter]]

    def _wrong(self, where: str, key: str, message: str) -> None:
        self.problems.append(f"{self._source}: {where}.{key}: {message}")
