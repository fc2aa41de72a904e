"""The layout of an invented city: districts, streets, devices with places, and which gateway hears which.

A seed and a few counts decide everything. Devices sit near street corners of a square grid around a centre;
gateways share the devices by longitude in equal parts, as radio coverage would. The number of gateways
changes neither places nor readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, radians

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_sim.metrics import (
    DOMAIN_OF_KIND,
    GAS_WELL,
    KINDS,
    MANHOLE,
    METRICS_OF_KIND,
    PREFIX_OF_KIND,
    Metric,
)
from citynet_sim.noise import F64, uniforms

DEVICES_PER_KIND_MAX = 9999  # four digits in a device's name
GATEWAYS_MAX = 256
SITE_NUMBERS = 8  # uniform numbers that a model draws its site's constants from
_METRES_PER_DEGREE = 111_320.0
_EXTENT_M = 9_000.0  # the city is a square of this side
_STREET_M = 450.0
_CORNER_M = 60.0  # a device stands within this distance of its corner, along each axis
_DISTRICT_COLUMNS, _DISTRICT_ROWS = 3, 2


@dataclass(frozen=True, slots=True)
class CityParameters:
    """What a city is generated from, besides the seed: devices of each kind, gateways, centre (WGS-84)."""

    gas_wells: int = 160
    water_meters: int = 80
    manholes: int = 200
    pump_stations: int = 20
    gateways: tuple[str, ...] = ("gw-01", "gw-02")
    lon_center_deg: float = 116.0
    lat_center_deg: float = 30.5

    def counts(self) -> dict[str, int]:
        """Number of devices by kind."""
        return dict(zip(KINDS, (self.gas_wells, self.water_meters, self.manholes, self.pump_stations), strict=True))


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
        return METRICS_OF_KIND[self.kind]

    def distance_m(self, other: Device) -> float:
        """Distance in a straight line."""
        return hypot(self.x_m - other.x_m, self.y_m - other.y_m)

    def registration(self) -> dict[str, object]:
        """The device as a city would register it: place, gateway and series with unit and range."""
        series = [{"metric": m.name, "unit": m.unit, "low": m.low, "high": m.high} for m in self.metrics]
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
        return tuple(f"district-{k + 1}" for k in range(_DISTRICT_COLUMNS * _DISTRICT_ROWS))

    def of_kind(self, kind: str) -> list[Device]:
        """The devices of one kind, in the order of their names."""
        return [device for device in self.devices if device.kind == kind]

    def nearest(self, device: Device, count: int) -> list[Device]:
        """The `count` nearest other devices of the same kind, nearest first."""
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
    places = [
        (kind, f"{PREFIX_OF_KIND[kind]}-{number:04d}")
        for kind, count in parameters.counts().items()
        for number in range(1, count + 1)
    ]
    spots = [_spot(seed, name) for _, name in places]
    owner = _share(spots, parameters.gateways)
    devices = tuple(
        _device(index, kind, name, owner[index], spots[index], parameters, seed)
        for index, (kind, name) in enumerate(places)
    )
    return City(seed, parameters, devices)


def _check(parameters: CityParameters) -> None:
    problems = [
        f"city.{kind.replace('-', '_')}s: {count} devices, at most {DEVICES_PER_KIND_MAX} of a kind"
        for kind, count in parameters.counts().items()
        if not 0 <= count <= DEVICES_PER_KIND_MAX
    ]
    problems += [f"gateways: {name[:80]!r} is not an identifier" for name in parameters.gateways if not is_id(name)]
    if len(set(parameters.gateways)) != len(parameters.gateways):
        problems.append("gateways: a name is there twice")
    if not 1 <= len(parameters.gateways) <= GATEWAYS_MAX:
        problems.append(f"gateways: {len(parameters.gateways)} of them, 1 to {GATEWAYS_MAX} are possible")
    if not any(parameters.counts().values()):
        problems.append("city: no devices at all")
    if problems:
        raise ConfigError(problems)


def _spot(seed: int, name: str) -> tuple[float, float]:
    """Metres east and north of the centre: near a street corner."""
    u = uniforms(seed, f"place/{name}", 0, 4)
    corners = int(_EXTENT_M // _STREET_M)
    east, north = int(corners * u[0]), int(corners * u[1])
    half = (corners - 1) / 2
    return (
        (east - half) * _STREET_M + (2.0 * float(u[2]) - 1.0) * _CORNER_M,
        (north - half) * _STREET_M + (2.0 * float(u[3]) - 1.0) * _CORNER_M,
    )


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
    lat = parameters.lat_center_deg + y / _METRES_PER_DEGREE
    lon = parameters.lon_center_deg + x / (_METRES_PER_DEGREE * cos(radians(parameters.lat_center_deg)))
    column = min(int((x / _EXTENT_M + 0.5) * _DISTRICT_COLUMNS), _DISTRICT_COLUMNS - 1)
    row = min(int((y / _EXTENT_M + 0.5) * _DISTRICT_ROWS), _DISTRICT_ROWS - 1)
    # The ground falls to the south-east, where the river would be, with hollows of up to 2 m.
    ground = 30.0 - 0.0008 * x + 0.0008 * y + 2.0 * float(uniforms(seed, f"ground/{name}", 0, 1)[0])
    district = f"district-{max(row, 0) * _DISTRICT_COLUMNS + max(column, 0) + 1}"
    return Device(index, name, kind, gateway, district, x, y, round(ground, 2), round(lon, 6), round(lat, 6))


def describe(city: City) -> dict[str, object]:
    """Counts of a city, for people and scripts."""
    by_gateway = dict.fromkeys(city.parameters.gateways, 0)
    for device in city.devices:
        by_gateway[device.gateway] += 1
    kinds = {
        kind: {
            "domain": DOMAIN_OF_KIND[kind],
            "devices": count,
            "metrics": [f"{metric.name} [{metric.unit}]" for metric in METRICS_OF_KIND[kind]],
        }
        for kind, count in city.parameters.counts().items()
    }
    return {
        "seed": city.seed, "devices": len(city.devices), "series": city.series_count,
        "districts": list(city.districts), "gateways": by_gateway, "kinds": kinds,
    }  # fmt: skip


def lowest_manhole(city: City) -> Device | None:
    """The manhole on the lowest ground, where water gathers; None in a city without manholes."""
    return min(city.of_kind(MANHOLE), key=lambda device: (device.ground_m, device.index), default=None)


def central_well(city: City) -> Device | None:
    """The gas well nearest to the centre, where neighbours are close; None in a city without wells."""
    wells = city.of_kind(GAS_WELL)
    return min(wells, key=lambda device: (hypot(device.x_m, device.y_m), device.index), default=None)
