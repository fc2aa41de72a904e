"""What connects the city: sewers with their direction, gas pipes, water pipes, streets, districts; as data and as GeoJSON."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from typing import Any

from citynet_sim import places
from citynet_sim.city import DISTRICT_COLUMNS, DISTRICT_ROWS, City, Device, at, metres
from citynet_sim.inp import PIPE
from citynet_sim.mains import PipedSupply
from citynet_sim.metering import device_name
from citynet_sim.supply import WaterSupply
from citynet_sim.world import Supply

OUTFALL = "outfall"
OUTFALL_M = places.RIVER[0]
NODE = "wn"  # what names of a water network's nodes begin with, so that they are none of a device


@dataclass(frozen=True, slots=True)
class Pipe:
    """A pipe that flows from `start` to `end` (names of devices or nodes), along `line` (metres east, north)."""

    network: str
    start: str
    end: str
    line: tuple[tuple[float, float], ...]
    name: str = ""  # where a file gives it one
    kind: str = "pipe"
    known_m: float | None = None  # its length, where a file says so

    @property
    def length_m(self) -> float:
        if self.known_m is not None:
            return self.known_m
        return sum(hypot(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in pairwise(self.line))


def sewers(city: City) -> list[Pipe]:
    """Every manhole drains to the nearest one on lower ground, the lowest to the river: a tree, since height falls.

    Where a file says where manholes drain to, it says so of all: the others are at the end.
    """
    manholes = city.of_kind("manhole")
    drains = {} if city.survey is None else city.survey.drains
    by_name = {manhole.name: manhole for manhole in manholes}
    pipes = []
    for manhole in manholes:
        if drains:
            pipes.append(_drain(manhole, by_name.get(drains.get(manhole.name, ""))))
            continue
        lower = [other for other in manholes if (other.ground_m, other.index) < (manhole.ground_m, manhole.index)]
        down = min(lower, key=lambda other: (manhole.distance_m(other), other.index), default=None)
        pipes.append(_drain(manhole, down))
    return pipes


def _drain(manhole: Device, down: Device | None) -> Pipe:
    if down is not None:
        return _pipe("sewer", manhole, down)
    return Pipe("sewer", manhole.name, OUTFALL, ((manhole.x_m, manhole.y_m), OUTFALL_M))


def water_of_file(city: City, supply: PipedSupply) -> list[Pipe]:
    """The links of the network, from where the water comes on an average day."""
    survey, parameters = city.survey, city.parameters
    nodes = {} if survey is None else survey.nodes
    spots = {name: metres(parameters, lon, lat) for name, (lon, lat) in nodes.items()}
    pipes = []
    for link, way in zip(supply.network.links.values(), supply.directions().values(), strict=True):
        ends = (link.start, link.end)[::way]
        line = (spots[ends[0]], spots[ends[1]])
        known = link.length_m if link.kind == PIPE else 0.0
        names = [device_name(NODE, end) for end in ends]
        pipes.append(Pipe("water", names[0], names[1], line, link.name, link.kind, known))
    return pipes


def downstream(city: City) -> dict[str, str]:
    """Manhole to the manhole it drains to, or the outfall."""
    return {pipe.start: pipe.end for pipe in sewers(city)}


def gas_pipes(city: City) -> list[Pipe]:
    """The wells joined by the shortest tree (Prim), from the well that is nearest to the centre outwards."""
    wells = city.of_kind("gas-well")
    if not wells:
        return []
    root = min(wells, key=lambda well: (hypot(well.x_m, well.y_m), well.index))
    joined = {root.index}
    best = {well.index: (well.distance_m(root), root) for well in wells if well is not root}
    by_index = {well.index: well for well in wells}
    pipes = []
    while len(joined) < len(wells):
        index = min(best, key=lambda k: (best[k][0], k))
        well, (_, parent) = by_index[index], best.pop(index)
        joined.add(index)
        pipes.append(_pipe("gas", parent, well))
        for other, (distance, _) in list(best.items()):
            nearer = well.distance_m(by_index[other])
            if nearer < distance:
                best[other] = (nearer, well)
    return pipes


def main_nodes(city: City, supply: WaterSupply) -> dict[str, tuple[float, float]]:
    """The crossings of the mains and the waterworks, with their places in metres."""
    nodes = {f"main-{k + 1:02d}": spot for k, spot in enumerate(supply.corners)}
    half = 0.55 * city.parameters.extent_m
    return nodes | {"waterworks-1": (-half, 0.0), "waterworks-2": (half, half)}


def water_pipes(city: City, supply: Supply) -> list[Pipe]:
    """Mains, inlets of the metered districts, branches to pressure points; or the network of a file."""
    if isinstance(supply, PipedSupply):
        return water_of_file(city, supply)
    known = main_nodes(city, supply)
    nodes, spots = list(known), list(known.values())
    loops = supply.loops
    pipes = [
        Pipe("water", nodes[a], nodes[b], (spots[a], spots[b]))
        for a, b in zip(loops.start.tolist(), loops.end.tolist(), strict=True)
    ]
    for meter, k in zip(supply.meters, supply.tree.crossing.tolist(), strict=True):
        pipes.append(Pipe("water", nodes[k], meter.name, (spots[k], (meter.x_m, meter.y_m))))
    for point, k in zip(supply.points, supply.tree.district.tolist(), strict=False):
        pipes.append(_pipe("water", supply.meters[k], point))
    return pipes


def _pipe(network: str, start: Device, end: Device) -> Pipe:
    return Pipe(network, start.name, end.name, ((start.x_m, start.y_m), (end.x_m, end.y_m)))


def pipes_of(city: City, supply: Supply) -> list[Pipe]:
    """All pipes of a city."""
    return [*sewers(city), *gas_pipes(city), *water_pipes(city, supply)]


def edges(city: City, supply: Supply) -> list[dict[str, object]]:
    """The pipes as the truth file and `citynet sim describe --json` tell them; `line` in longitude and latitude."""
    return [
        {
            "network": pipe.network, "from": pipe.start, "to": pipe.end, "length_m": round(pipe.length_m, 1),
            "line": [list(at(city.parameters, x, y)) for x, y in pipe.line],
            **({"name": pipe.name, "kind": pipe.kind} if pipe.name else {}),
        }
        for pipe in pipes_of(city, supply)
    ]  # fmt: skip


def geojson(city: City, supply: Supply) -> dict[str, Any]:
    """The whole city as a GeoJSON FeatureCollection (RFC 7946): districts, river, tunnel, streets, pipes, devices."""
    features = [*_districts(city), *_lines(city)]
    for edge in edges(city, supply):
        properties: dict[str, Any] = {
            key: edge[key] for key in ("network", "from", "to", "length_m", "name", "kind") if key in edge
        }
        features.append(_feature("LineString", edge["line"], {"what": "pipe", **properties}))
    for device in city.devices:
        about = {"what": "device", "name": device.name, "kind": device.kind, "district": device.district}
        features.append(_feature("Point", [device.lon, device.lat], about))
    return {"type": "FeatureCollection", "features": features}


def outlines(city: City) -> list[tuple[str, list[tuple[float, float]]]]:
    """Districts with their outer rings in longitude and latitude."""
    if city.survey is not None and city.survey.districts:
        return [(district.id, district.ring) for district in city.survey.districts]
    side = city.parameters.extent_m
    found = []
    for number, name in enumerate(city.districts):
        row, column = divmod(number, DISTRICT_COLUMNS)
        west, east = ((k / DISTRICT_COLUMNS - 0.5) * side for k in (column, column + 1))
        south, north = ((k / DISTRICT_ROWS - 0.5) * side for k in (row, row + 1))
        ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        found.append((name, [at(city.parameters, x, y) for x, y in ring]))
    return found


def _districts(city: City) -> list[dict[str, Any]]:
    return [_feature("Polygon", [ring], {"what": "district", "name": name}) for name, ring in outlines(city)]


def _lines(city: City) -> list[dict[str, Any]]:
    scale = places.scale(city.parameters.area_km2)
    found = []
    for name, line in (("river", places.RIVER), ("utility-tunnel", places.TUNNEL)):
        ends = [at(city.parameters, scale * x, scale * y) for x, y in line]
        found.append(_feature("LineString", ends, {"what": name}))
    half, count = city.parameters.extent_m / 2, int(places.EXTENT_M // places.STREET_M)
    for k in range(count):
        place = (k - (count - 1) / 2) * places.STREET_M * scale
        for ends_m in (((-half, place), (half, place)), ((place, -half), (place, half))):
            ends = [at(city.parameters, x, y) for x, y in ends_m]
            found.append(_feature("LineString", ends, {"what": "street"}))
    return found


def _feature(kind: str, coordinates: object, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}
