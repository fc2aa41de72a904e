"""The city as it registers itself: the documents for `POST /v1/devices` and `POST /v1/topology`, and sending them to an api."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from citynet.errors import CitynetError, ConfigError
from citynet_sim import topology
from citynet_sim.city import City, at
from citynet_sim.mains import PipedSupply
from citynet_sim.metering import device_name
from citynet_sim.simulation import Simulation

DEVICES_PATH, TOPOLOGY_PATH = "/v1/devices", "/v1/topology"
DEVICES_AT_ONCE = 5000
_TIMEOUT_S = 60.0
Document = dict[str, Any]


class RegistrationError(CitynetError):
    """The api refused a document, or could not be asked; says which and why."""


def devices(simulation: Simulation) -> list[Document]:
    """Registration documents of all devices, with their sampling intervals."""
    return [device.registration(simulation.period_us(device) / 1e6) for device in simulation.city.devices]


def topology_of(simulation: Simulation) -> Document:
    """Districts with their outlines, assets with the devices at them, and the pipes of all networks."""
    city, supply = simulation.city, simulation.world.supply
    pipes = topology.pipes_of(city, supply)
    networks: dict[str, list[Document]] = {}
    for pipe in pipes:
        networks.setdefault(pipe.network, []).append(_edge(city, pipe))
    return {"districts": _districts(city), "assets": [*_assets(simulation), *_nodes(simulation)], "networks": networks}


def _districts(city: City) -> list[Document]:
    labels = {d.id: d.name for d in city.survey.districts} if city.survey is not None else {}
    return [
        {"district": name, "label": labels.get(name) or None, "outline": [list(spot) for spot in ring]}
        for name, ring in topology.outlines(city)
    ]


def _assets(simulation: Simulation) -> list[Document]:
    """What the devices stand at that are at no node of a network from a file: things of their own kind and name."""
    city, supply = simulation.city, simulation.world.supply
    at_nodes = supply.metering.node_of if isinstance(supply, PipedSupply) else {}
    labels = city.survey.labels if city.survey is not None else {}
    return [
        {
            "asset": device.name, "kind": device.kind, "label": labels.get(device.name), "district": device.district,
            "lon": device.lon, "lat": device.lat, "devices": [device.name],
        }
        for device in city.devices
        if device.name not in at_nodes
    ]  # fmt: skip


def _nodes(simulation: Simulation) -> list[Document]:
    """The other ends of pipes."""
    city, supply = simulation.city, simulation.world.supply
    found: list[Document] = []
    if isinstance(supply, PipedSupply) and city.survey is not None:
        standing: dict[str, list[str]] = {}
        for device, node in supply.metering.node_of.items():
            standing.setdefault(node, []).append(device)
        for name, what in supply.network.nodes.items():
            lon, lat = city.survey.nodes[name]
            asset = device_name(topology.NODE, name)
            found.append({"asset": asset, "kind": what.kind, "lon": lon, "lat": lat, "devices": standing.get(name, [])})
    elif not isinstance(supply, PipedSupply):
        for name, spot in topology.main_nodes(city, supply).items():
            lon, lat = at(city.parameters, *spot)
            kind = "waterworks" if name.startswith("waterworks") else "junction"
            found.append({"asset": name, "kind": kind, "lon": lon, "lat": lat, "devices": []})
    if city.of_kind("manhole"):
        lon, lat = at(city.parameters, *topology.OUTFALL_M)
        found.append({"asset": topology.OUTFALL, "kind": "outfall", "lon": lon, "lat": lat, "devices": []})
    return found


def _edge(city: City, pipe: topology.Pipe) -> Document:
    """A manhole has one way out, a well or meter one way in: that names a pipe which has no name of its own."""
    name = pipe.start if pipe.network == "sewer" else pipe.end
    if pipe.network == "water" and pipe.end.startswith(("main-", "waterworks-")):
        name = f"{pipe.start}.{pipe.end}"
    return {
        "edge": device_name("p", pipe.name) if pipe.name else name, "kind": pipe.kind, "from": pipe.start, "to": pipe.end,
        "length_m": round(pipe.length_m, 1), "line": [list(at(city.parameters, x, y)) for x, y in pipe.line],
    }  # fmt: skip


def send(url: str, token: str, simulation: Simulation) -> list[Document]:
    """Register the city at the api of `url`; what it answered to each document.

    Raises:
        ConfigError: no http address. RegistrationError: refused, or nobody answers.
    """
    found = devices(simulation)
    parts: list[tuple[str, Sequence[Document] | Document]] = [
        (DEVICES_PATH, found[first : first + DEVICES_AT_ONCE]) for first in range(0, len(found), DEVICES_AT_ONCE)
    ]
    parts.append((TOPOLOGY_PATH, topology_of(simulation)))
    return [_post(url, path, token, document) for path, document in parts]


def _post(url: str, path: str, token: str, document: object) -> Document:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError([f"--url {url[:80]!r}: needs http://HOST:PORT"])
    kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
    connection = kind(address.hostname, address.port, timeout=_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", address.path.rstrip("/") + path, json.dumps(document).encode(), headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        raise RegistrationError(f"{url}{path}: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise RegistrationError(f"{url}{path}: {answer.status} {body[:500].decode('utf-8', 'replace')}")
    said: Document = json.loads(body)
    return said
