"""A city that is read from files: places from an EPANET network and from GeoJSON; only what they leave open is invented.

- Coordinates become longitude and latitude, and metres around the middle of all that the files place; the city is the
  smallest square (of 1 km² at least) around that middle that has all of it.
- The network brings water meters and pressure points (`metering`). GeoJSON brings districts, and the devices of the
  kinds that it names. With a GeoJSON file, kinds that neither file has are there only if `[sim.city.devices]` counts
  them; without, they go with the population.
- A device is in the district whose polygon has it, else in the one whose middle is nearest; without polygons in one of
  the six parts that an invented city has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import cos, radians

from citynet.errors import ConfigError
from citynet_sim import city as layout
from citynet_sim import features as geo
from citynet_sim import inp, metering
from citynet_sim.city import METRES_PER_DEGREE, City, CityParameters, Spot, Survey
from citynet_sim.city_files import CityFiles
from citynet_sim.kinds import KINDS

_AREA_KM2 = (1.0, 10_000.0)
_OF_NETWORK = ("water-meter", "pressure-point")
Degrees = tuple[float, float]
Placed = Mapping[str, Degrees]


@dataclass(frozen=True, slots=True)
class _Named:
    """A device before it has its place in metres: kind, name, where, and what the file says of it."""

    kind: str
    name: str
    at: Degrees
    asset: geo.Asset | None = None


def build(seed: int, parameters: CityParameters, files: CityFiles) -> City:
    """The city of the files.

    Raises:
        ConfigError: every mistake of a file, or what does not fit together, one line each.
    """
    network, assets = _read(parameters, files)
    nodes = {} if network is None else _degrees(network, files, parameters)
    measured = None
    if network is not None:
        measured = metering.measure(network, parameters.devices.get("pressure-point"))
    named = _named(measured, nodes, assets)
    spots = [*nodes.values(), *(item.at for item in named)]
    spots += [point for district in (assets.districts if assets else ()) for point in district.ring]
    parameters = _around(parameters, spots, _counts(parameters, named, is_closed=assets is not None))
    survey = Survey(
        network, measured, nodes, assets.districts if assets else (),
        {asset.id: asset.name for asset in assets.assets if asset.name} if assets else {},
        {a.id: a.drains_to for a in assets.assets if a.drains_to} if assets else {},
        dict(_digests(network, assets)),
    )  # fmt: skip
    return layout.build(seed, parameters, _spots(named, parameters, survey), survey)


def _read(parameters: CityParameters, files: CityFiles) -> tuple[inp.Network | None, geo.Features | None]:
    network, assets = None, None
    problems: list[str] = []
    try:
        network = inp.read(files.inp) if files.inp else None
    except ConfigError as error:
        problems += error.problems
    try:
        assets = geo.read(files.geojson, parameters.gateways) if files.geojson else None
    except ConfigError as error:
        problems += error.problems
    if problems := problems or _clashes(parameters, network, assets):
        raise ConfigError(problems)
    return network, assets


def _digests(network: inp.Network | None, assets: geo.Features | None) -> list[tuple[str, str]]:
    return [(one.path, one.sha256) for one in (network, assets) if one is not None]


def _clashes(parameters: CityParameters, network: inp.Network | None, assets: geo.Features | None) -> list[str]:
    problems = []
    if network is not None and "water-meter" in parameters.devices:
        problems.append("city.devices.water-meter: the meters are those of the .inp file")
    for asset in assets.assets if assets else ():
        where = f"{assets.path if assets else ''}: id {asset.id!r}"
        if network is not None and asset.kind in _OF_NETWORK:
            problems.append(f"{where}: kind: a {asset.kind} comes from the .inp file")
        if asset.kind in parameters.devices:
            problems.append(f"city.devices.{asset.kind}: the GeoJSON file places them; remove the number")
    return list(dict.fromkeys(problems))[: geo.PROBLEMS_MAX]


def _degrees(network: inp.Network, files: CityFiles, parameters: CityParameters) -> dict[str, Degrees]:
    """Nodes of the network by longitude and latitude."""
    turn = _to_degrees(network, files, parameters)
    found = {name: turn(node.x, node.y) for name, node in network.nodes.items()}
    outside = [name for name, (lon, lat) in found.items() if not (-180.0 <= lon <= 180.0 and -85.0 <= lat <= 85.0)]
    if outside:
        hint = "; coordinates = 'local' for a plane" if files.coordinates == "wgs84" else "; see unit_m and the origin"
        raise ConfigError(
            [f"{network.path}: [COORDINATES]: {len(outside)} nodes, first {outside[0]!r}, are nowhere on earth{hint}"]
        )
    return found


def _to_degrees(
    network: inp.Network, files: CityFiles, parameters: CityParameters
) -> Callable[[float, float], Degrees]:
    if files.coordinates == "wgs84":
        return lambda x, y: (round(x, 6), round(y, 6))
    xs, ys = [n.x for n in network.nodes.values()], [n.y for n in network.nodes.values()]
    if files.origin_lon_deg is None or files.origin_lat_deg is None:
        lon0, lat0 = parameters.lon_center_deg, parameters.lat_center_deg
        x0, y0 = 0.5 * (min(xs) + max(xs)), 0.5 * (min(ys) + max(ys))
    else:
        lon0, lat0, x0, y0 = files.origin_lon_deg, files.origin_lat_deg, 0.0, 0.0
    east = files.unit_m / (METRES_PER_DEGREE * cos(radians(lat0)))
    north = files.unit_m / METRES_PER_DEGREE
    return lambda x, y: (round(lon0 + (x - x0) * east, 6), round(lat0 + (y - y0) * north, 6))


def _named(measured: metering.Metering | None, nodes: Placed, assets: geo.Features | None) -> list[_Named]:
    """The devices that the files have, by kind in the order of the table, in the order of the files."""
    found: list[_Named] = []
    for kind in KINDS:
        if measured is not None and kind in _OF_NETWORK:
            is_meter = kind == "water-meter"
            found += [
                _Named(kind, name, nodes[node])
                for name, node in measured.node_of.items()
                if (name in measured.junctions) == is_meter
            ]
        found += [_Named(kind, a.id, (a.lon, a.lat), a) for a in (assets.assets if assets else ()) if a.kind == kind]
    return found


def _counts(parameters: CityParameters, named: Sequence[_Named], *, is_closed: bool) -> dict[str, int]:
    """Devices by kind: those of the files, else as the settings say."""
    usual = parameters.devices if is_closed else parameters.counts()
    counts = {kind: int(usual.get(kind, 0)) for kind in KINDS}
    for kind in {item.kind for item in named}:
        counts[kind] = sum(item.kind == kind for item in named)
    return counts


def _around(parameters: CityParameters, spots: Sequence[Degrees], counts: Mapping[str, int]) -> CityParameters:
    """The parameters of the square that has all places."""
    lons, lats = [lon for lon, _ in spots], [lat for _, lat in spots]
    lon, lat = 0.5 * (min(lons) + max(lons)), 0.5 * (min(lats) + max(lats))
    side_m = METRES_PER_DEGREE * max((max(lons) - min(lons)) * cos(radians(lat)), max(lats) - min(lats))
    area = min(max((side_m / 1000.0) ** 2, _AREA_KM2[0]), _AREA_KM2[1])
    return replace(parameters, lon_center_deg=lon, lat_center_deg=lat, area_km2=area, devices=dict(counts))


def _spots(named: Sequence[_Named], parameters: CityParameters, survey: Survey) -> list[Spot]:
    """Devices with their places in metres around the middle."""
    network, measured = survey.network, survey.metering
    found = []
    for item in named:
        x, y = layout.metres(parameters, *item.at)
        ground = None if item.asset is None else item.asset.ground_m
        if network is not None and measured is not None and item.asset is None:
            ground = network.nodes[measured.node_of[item.name]].elevation_m
        district = item.asset.district if item.asset else None
        gateway = item.asset.gateway if item.asset else None
        found.append(Spot(item.kind, item.name, x, y, ground, district, gateway))
    return found
