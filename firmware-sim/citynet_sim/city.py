"""The layout of an invented city: districts, streets, devices with places, and which gateway hears which.

A seed and a few parameters decide everything: population and area, or counts of devices. Devices stand where their kind stands
(`places`); gateways share the devices by longitude in equal parts, as radio coverage would. The number of gateways
changes neither places nor readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, hypot, radians

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_sim import places
from citynet_sim.features import District, district_of
from citynet_sim.inp import Network
from citynet_sim.kinds import KINDS
from citynet_sim.metering import Metering
from citynet_sim.metrics import Metric
from citynet_sim.noise import F64, uniforms
from citynet_sim.weather import CLIMATES

DEVICES_PER_KIND_MAX = 9999  # four digits in a device's name
GATEWAYS_MAX = 256
SITE_NUMBERS = 8  # uniform numbers that a model draws its site's constants from
METRES_PER_DEGREE = 111_320.0
DISTRICT_COLUMNS, DISTRICT_ROWS = 3, 2


@dataclass(frozen=True, slots=True)
class CityParameters:
    """What a city is generated from, besides the seed: inhabitants, area, climate, gateways, centre (WGS-84).

    `devices` are counts by kind; a kind that is not in it has as many as go with the population.
    """

    population: int = 1_000_000
    area_km2: float = 81.0
    climate: str = "humid-subtropical"
    devices: Mapping[str, int] = field(default_factory=dict)
    gateways: tuple[str, ...] = ("gw-01", "gw-02")
    lon_center_deg: float = 116.0
    lat_center_deg: float = 30.5

    def counts(self) -> dict[str, int]:
        """Number of devices by kind."""
        usual = {name: round(kind.per_100k * self.population / 100_000) for name, kind in KINDS.items()}
        return {name: self.devices.get(name, count) for name, count in usual.items()}

    @property
    def extent_m(self) -> float:
        """The city is a square of this side."""
        return places.EXTENT_M * places.scale(self.area_km2)


def at(parameters: CityParameters, x_m: float, y_m: float) -> tuple[float, float]:
    """Longitude and latitude of a place `x_m` east and `y_m` north of the centre."""
    lat = parameters.lat_center_deg + y_m / METRES_PER_DEGREE
    lon = parameters.lon_center_deg + x_m / (METRES_PER_DEGREE * cos(radians(parameters.lat_center_deg)))
    return round(lon, 6), round(lat, 6)


def metres(parameters: CityParameters, lon: float, lat: float) -> tuple[float, float]:
    """Metres east and north of the centre: the inverse of `at`."""
    x_m = (lon - parameters.lon_center_deg) * METRES_PER_DEGREE * cos(radians(parameters.lat_center_deg))
    return x_m, (lat - parameters.lat_center_deg) * METRES_PER_DEGREE


@dataclass(frozen=True, slots=True)
class Spot:
    """A device that a file has placed: metres around the centre; None where the file says nothing."""

    kind: str
    name: str
    x_m: float
    y_m: float
    ground_m: float | None = None
    district: str | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What files say of a city besides its devices: the water network with places of its nodes (longitude, latitude),
    districts, what people call devices, manhole to manhole, and the files' SHA-256 by path."""

    network: Network | None
    metering: Metering | None
    nodes: Mapping[str, tuple[float, float]]
    districts: tuple[District, ...]
    labels: Mapping[str, str]
    drains: Mapping[str, str]
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Device:
    """One device in the field: `x_m`, `y_m` east and north of the centre, `ground_m` height of the ground."""

    index: int
    name: str
    kind: str
    gateway: str
    district: str
    x_m: float
    y_m: float
    ground_m: float
    lon: float
    lat: float

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return KINDS[self.kind].metrics

    def distance_m(self, other: Device) -> float:
        """Distance in a straight line."""
        return hypot(self.x_m - other.x_m, self.y_m - other.y_m)

    def registration(self, interval_s: float | None = None) -> dict[str, object]:
        """The device as a city would register it: place, gateway and series with unit, range and sampling interval."""
        every = {} if interval_s is None else {"interval_s": interval_s}
        series = [{"metric": m.name, "unit": m.unit, "low": m.low, "high": m.high, **every} for m in self.metrics]
        return {
            "device": self.name, "kind": self.kind, "gateway": self.gateway, "district": self.district,
            "lon": self.lon, "lat": self.lat, "series": series,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class City:
    """A generated city, or one that was read from files (`survey`); `devices[k].index == k`."""

    seed: int
    parameters: CityParameters
    devices: tuple[Device, ...]
    survey: Survey | None = None

    @property
    def series_count(self) -> int:
        return sum(len(device.metrics) for device in self.devices)

    @property
    def districts(self) -> tuple[str, ...]:
        if self.survey is not None and self.survey.districts:
            return tuple(district.id for district in self.survey.districts)
        return tuple(f"district-{k + 1}" for k in range(DISTRICT_COLUMNS * DISTRICT_ROWS))

    def of_kind(self, kind: str) -> list[Device]:
        """The devices of one kind, in the order of their names."""
        return [device for device in self.devices if device.kind == kind]

    def nearest(self, device: Device, count: int) -> list[Device]:
        """The `count` nearest other devices of the same kind, nearest first."""
        if count <= 0:
            return []
        others = [other for other in self.of_kind(device.kind) if other is not device]
        return sorted(others, key=lambda other: (device.distance_m(other), other.index))[:count]

    def site(self, device: Device) -> F64:
        """The numbers in [0, 1) that a model draws this device's constants from."""
        return uniforms(self.seed, f"site/{device.name}", 0, SITE_NUMBERS)


def build(seed: int, parameters: CityParameters, placed: Sequence[Spot] = (), survey: Survey | None = None) -> City:
    """Generate the city: as many devices as the parameters count, those that files have `placed` where they are.

    Raises:
        ConfigError: counts or gateways outside the bounds; every mistake, one line each.
    """
    _check(parameters)
    spots = [*placed, *_invented(seed, parameters, {spot.kind for spot in placed})]
    spots.sort(key=lambda spot: list(KINDS).index(spot.kind))  # stable: in a kind as the files have them
    names = [spot.name for spot in spots]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError([f"device {name!r}: the files and the city have it; rename it" for name in twice])
    owner = _share([(spot.x_m, spot.y_m) for spot in spots], parameters.gateways)
    devices = tuple(
        _device(index, spot, spot.gateway or owner[index], parameters, seed, survey) for index, spot in enumerate(spots)
    )
    return City(seed, parameters, devices, survey)


def _invented(seed: int, parameters: CityParameters, known: set[str]) -> list[Spot]:
    """Devices of the kinds that no file has, where their kind stands."""
    found = []
    counts, scale = parameters.counts(), places.scale(parameters.area_km2)
    for kind, count in counts.items():
        for number in range(1, count + 1) if kind not in known else ():
            name = f"{KINDS[kind].prefix}-{number:04d}"
            x, y = KINDS[kind].place(seed, name, number, count)
            found.append(Spot(kind, name, scale * x, scale * y))
    return found


def _check(parameters: CityParameters) -> None:
    counts = parameters.counts()
    problems = [
        f"city.devices.{kind}: {count} devices, at most {DEVICES_PER_KIND_MAX} of a kind"
        for kind, count in counts.items()
        if not 0 <= count <= DEVICES_PER_KIND_MAX
    ]
    unknown = sorted(set(parameters.devices) - set(KINDS))
    problems += [f"city.devices.{kind[:80]}: unknown kind (known: {', '.join(KINDS)})" for kind in unknown]
    problems += [f"gateways: {name[:80]!r} is not an identifier" for name in parameters.gateways if not is_id(name)]
    if len(set(parameters.gateways)) != len(parameters.gateways):
        problems.append("gateways: a name is there twice")
    if not 1 <= len(parameters.gateways) <= GATEWAYS_MAX:
        problems.append(f"gateways: {len(parameters.gateways)} of them, 1 to {GATEWAYS_MAX} are possible")
    if parameters.climate not in CLIMATES:
        problems.append(f"city.climate: {parameters.climate[:80]!r} is unknown (known: {', '.join(CLIMATES)})")
    if counts["pressure-point"] and not counts["water-meter"]:
        problems.append("city.devices.pressure-point: pressure points need a water meter to hang on")
    if not any(counts.values()):
        problems.append("city: no devices at all")
    if problems:
        raise ConfigError(problems)


def _share(spots: list[tuple[float, float]], gateways: tuple[str, ...]) -> dict[int, str]:
    """Device index to gateway: equal shares from west to east."""
    order = sorted(range(len(spots)), key=lambda index: (spots[index], index))
    return {index: gateways[rank * len(gateways) // len(order)] for rank, index in enumerate(order)}


def _device(
    index: int, spot: Spot, gateway: str, parameters: CityParameters, seed: int, survey: Survey | None
) -> Device:
    x, y = spot.x_m, spot.y_m
    lon, lat = at(parameters, x, y)
    ground = spot.ground_m
    if ground is None:  # hollows of up to 2 m
        ground = places.ground_m(x, y) + 2.0 * float(uniforms(seed, f"ground/{spot.name}", 0, 1)[0])
    outlines = () if survey is None else survey.districts
    district = spot.district or (district_of((lon, lat), outlines) if outlines else _sixth(parameters, x, y))
    return Device(index, spot.name, spot.kind, gateway, district, x, y, round(ground, 2), lon, lat)


def _sixth(parameters: CityParameters, x: float, y: float) -> str:
    """The district of a place in a city that is cut into six."""
    column = min(int((x / parameters.extent_m + 0.5) * DISTRICT_COLUMNS), DISTRICT_COLUMNS - 1)
    row = min(int((y / parameters.extent_m + 0.5) * DISTRICT_ROWS), DISTRICT_ROWS - 1)
    return f"district-{max(row, 0) * DISTRICT_COLUMNS + max(column, 0) + 1}"


def describe(city: City) -> dict[str, object]:
    """Counts of a city, for people and scripts."""
    by_gateway = dict.fromkeys(city.parameters.gateways, 0)
    for device in city.devices:
        by_gateway[device.gateway] += 1
    kinds = {
        kind: {
            "domain": KINDS[kind].domain,
            "devices": len(city.of_kind(kind)),
            "metrics": [f"{metric.name} [{metric.unit}]" for metric in KINDS[kind].metrics],
        }
        for kind in KINDS
    }
    return {
        "seed": city.seed, "population": city.parameters.population, "climate": city.parameters.climate,
        "devices": len(city.devices), "series": city.series_count,
        "districts": list(city.districts), "gateways": by_gateway, "kinds": kinds,
    }  # fmt: skip


def lowest_of(devices: list[Device]) -> Device | None:
    """The device on the lowest ground, where water gathers; None of none."""
    return min(devices, key=lambda device: (device.ground_m, device.index), default=None)


def central_of(devices: list[Device]) -> Device | None:
    """The device nearest to the centre, where neighbours are close; None of none."""
    return min(devices, key=lambda device: (hypot(device.x_m, device.y_m), device.index), default=None)


def first_of(devices: list[Device]) -> Device | None:
    """The device with the lowest number; None of none."""
    return devices[0] if devices else None
