"""What is measured in a water network that was read from a file: its metered districts, their inlets, pressure points.

- A junction whose tag begins with ``dma-`` belongs to the meter of that name. All others are cut in two, across the
  longer side of what they cover and with half of the demand on each side, until a part uses no more than
  `DEMAND_MAX_M3_H` on average or has one user.
- A meter tells the net inflow of its district: that of all links that enter it less those that leave it, which is what
  a district's balance is made of. Tanks and reservoirs are in no district. It stands, and its pressure is, at the
  junction where the widest of those links enters.
- Every other junction that uses water is a pressure point ``pp-NAME``; if a number is asked for, so many, evenly along
  the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_sim.inp import JUNCTION, PUMP, Network, Node

DEMAND_MAX_M3_H = 200.0  # a meter's full scale is 800, and the highest hour of a small district is twice its mean
TAG = "dma-"
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9._-]")
Crossing = list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Metering:
    """Meter to the junctions of its district; device to its junction and to its meter."""

    network: Network
    junctions: Mapping[str, tuple[str, ...]]
    node_of: Mapping[str, str]
    meter_of: Mapping[str, str]

    def meter_at(self, pipe: str) -> str | None:
        """The meter whose district a pipe lies in: where it ends, else where it begins."""
        link, owner = self.network.links[pipe], _owners(self.junctions)
        return owner.get(link.end, owner.get(link.start))

    def crossings(self, broken: Mapping[str, tuple[str, str]]) -> dict[str, Crossing]:
        """Meter to its links and 1 where their direction is into the district, -1 out of it.

        `broken`: pipe that was cut in two to its meter, in whose district the cut is, and the name of its second part.
        """
        owner = _owners(self.junctions)
        found: dict[str, Crossing] = {meter: [] for meter in self.junctions}
        for link in self.network.links.values():
            ends = [owner.get(link.start), owner.get(link.end)]
            parts = [(link.name, ends[0], ends[1])]
            if link.name in broken:
                meter, second = broken[link.name]
                parts = [(link.name, ends[0], meter), (second, meter, ends[1])]
            for name, start, end in parts:
                if start != end:
                    found.get(end or "", []).append((name, 1))
                    found.get(start or "", []).append((name, -1))
        return found


def _owners(junctions: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: meter for meter, names in junctions.items() for name in names}


def device_name(prefix: str, name: str) -> str:
    """A device's name from a name of the file: what a name cannot have becomes a hyphen."""
    return f"{prefix}-{_NOT_OF_A_NAME.sub('-', name)}"


def measure(network: Network, points_max: int | None) -> Metering:
    """Meters and pressure points of a network, `points_max` points at most if given.

    Raises:
        ConfigError: names that cannot be devices', one line each.
    """
    junctions = [node for node in network.nodes.values() if node.kind == JUNCTION]
    districts: dict[str, tuple[str, ...]] = {}
    for node in junctions:
        if node.tag.startswith(TAG):
            districts[node.tag] = (*districts.get(node.tag, ()), node.name)
    rest = [node for node in junctions if not node.tag.startswith(TAG)]
    parts = _halved(rest) if rest else []
    districts |= {f"{TAG}{number:04d}": tuple(n.name for n in part) for number, part in enumerate(parts, start=1)}
    node_of = {meter: _inlet(network, names) for meter, names in districts.items()}
    owner = _owners(districts)
    users = [node.name for node in junctions if node.demand_m3_s > 0.0 and node.name not in node_of.values()]
    if points_max is not None and points_max < len(users):
        users = [users[k * len(users) // points_max] for k in range(points_max)]
    points = [(device_name("pp", name), name) for name in users]
    _check(network, [*districts, *(device for device, _ in points)])
    meter_of = {meter: meter for meter in districts} | {device: owner[name] for device, name in points}
    return Metering(network, districts, node_of | dict(points), meter_of)


def _check(network: Network, names: Sequence[str]) -> None:
    problems = [f"{name[:80]!r} cannot be the name of a device" for name in names if not is_id(name)]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    problems += [f"{name!r} would be the name of two devices; rename a junction" for name in repeated]
    if problems:
        raise ConfigError([f"{network.path}: {problem}" for problem in problems])


def _halved(nodes: list[Node]) -> list[list[Node]]:
    users = [node for node in nodes if node.demand_m3_s > 0.0]
    total = sum(node.demand_m3_s for node in users)
    if len(users) < 2 or 3600.0 * total <= DEMAND_MAX_M3_H:
        return [nodes]
    wide = max(n.x for n in nodes) - min(n.x for n in nodes)
    high = max(n.y for n in nodes) - min(n.y for n in nodes)
    order = sorted(nodes, key=lambda n: ((n.x, n.y) if wide >= high else (n.y, n.x), n.name))
    behind, cut = 0.0, 0
    last_user = max(k for k, node in enumerate(order) if node.demand_m3_s > 0.0)
    for k, node in enumerate(order[: last_user + 1]):
        more = behind + max(node.demand_m3_s, 0.0)
        if behind > 0.0 and (k == last_user or more - 0.5 * total > 0.5 * total - behind):
            break  # from here on it would be further from a half
        behind, cut = more, k + 1
    return [*_halved(order[:cut]), *_halved(order[cut:])]


def _inlet(network: Network, names: tuple[str, ...]) -> str:
    """The junction where the widest link from outside ends; a pump counts as wider than any pipe. Else the first one."""
    inside = set(names)
    best: tuple[float, str] | None = None
    for link in network.links.values():
        ends = [node for node in (link.start, link.end) if node in inside]
        if len(ends) == 1:
            width = float("inf") if link.kind == PUMP else link.diameter_m
            if best is None or width > best[0]:
                best = (width, ends[0])
    return names[0] if best is None else best[1]
