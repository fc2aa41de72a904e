"""The layout of an invented city: districts, streets, devices with places, and which gateway hears which.

A seed and a few parameters decide everything: population and area, or counts of devices. Devices stand where their kind stands
(`places`); gateways share the devices by longitude in equal parts, as radio coverage would. The number of gateways
changes neither places nor readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import cos, hypot, radians

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_sim import places
from citynet_sim.kinds import KINDS
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
    """A generated city; `devices[k].index == k`."""

    seed: int
    parameters: CityParameters
    devices: tuple[Device, ...]

    @property
    def series_count(self) -> int:
        return sum(len(device.metrics) for device in self.devices)

    @property
    def districts(self) -> tuple[str, ...]:
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


def build(seed: int, parameters: CityParameters) -> City:
    """Generate the city.

    Raises:
        ConfigError: counts or gateways outside the bounds; every mistake, one line each.
    """
    _check(parameters)
    counts, scale = parameters.counts(), places.scale(parameters.area_km2)
    named = [
        (kind, f"{KINDS[kind].prefix}-{number:04d}", number)
        for kind, count in counts.items()
        for number in range(1, count + 1)
    ]
    spots = []
    for kind, name, number in named:
        x, y = KINDS[kind].place(seed, name, number, counts[kind])
        spots.append((scale * x, scale * y))
    owner = _share(spots, parameters.gateways)
    devices = tuple(
        _device(index, kind, name, owner[index], spots[index], parameters, seed)
        for index, (kind, name, _) in enumerate(named)
    )
    return City(seed, parameters, devices)


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
    index: int,
    kind: str,
    name: str,
    gateway: str,
    spot: tuple[float, float],
    parameters: CityParameters,
    seed: int,
) -> Device:
    x, y = spot
    lon, lat = at(parameters, x, y)
    column = min(int((x / parameters.extent_m + 0.5) * DISTRICT_COLUMNS), DISTRICT_COLUMNS - 1)
    row = min(int((y / parameters.extent_m + 0.5) * DISTRICT_ROWS), DISTRICT_ROWS - 1)
    # Hollows of up to 2 m.
    ground = places.ground_m(x, y) + 2.0 * float(uniforms(seed, f"ground/{name}", 0, 1)[0])
    district = f"district-{max(row, 0) * DISTRICT_COLUMNS + max(column, 0) + 1}"
    return Device(index, name, kind, gateway, district, x, y, round(ground, 2), lon, lat)


def describe(city: City) -> dict[str, object]:
    """Counts of a city, for people and scripts."""
    by_gateway = dict.fromkeys(city.parameters.gateways, 0)
    for device in city.devices:
        by_gateway[device.gateway] += 1
    kinds = {
        kind: {
            "domain": KINDS[kind].domain,
            "devices": count,
            "metrics": [f"{metric.name} [{metric.unit}]" for metric in KINDS[kind].metrics],
        }
        for kind, count in city.parameters.counts().items()
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
