"""Water networks from EPANET `.inp` files, read through WNTR: what is where, what is joined by what, who uses how much.

EPANET itself checks the file, so its own words and line say what is wrong. Everything here is in SI units; names are
the file's.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from citynet.errors import ConfigError

NODES_MAX = 20_000
INP_BYTES_MAX = 64 << 20
JUNCTION, TANK, RESERVOIR = "junction", "tank", "reservoir"
PIPE, PUMP, VALVE = "pipe", "pump", "valve"
_PROBLEMS_MAX = 50
# What WNTR's reader lets through where a file is sound for EPANET and not for it.
_READER_ERRORS = (
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    RuntimeError,
    SyntaxError,
    AssertionError,
)


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `x`, `y` in the file's own coordinates, `demand_m3_s` is the mean over its patterns."""

    name: str
    kind: str
    x: float
    y: float
    elevation_m: float
    demand_m3_s: float = 0.0
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A pipe, pump or valve from `start` to `end`. A pump has no diameter (0)."""

    name: str
    kind: str
    start: str
    end: str
    length_m: float
    diameter_m: float


@dataclass(frozen=True, slots=True)
class Network:
    """What a file says. `model` is WNTR's own, which nobody changes."""

    path: str
    sha256: str
    nodes: Mapping[str, Node]
    links: Mapping[str, Link]
    model: Any = field(repr=False, compare=False)


def wntr(module: str = "wntr") -> Any:
    """WNTR, or a module of it. ConfigError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError([f"reading .inp files needs the extra `sim-hydraulics` ({error})"]) from None


def read(path: str) -> Network:
    """Read a network.

    Raises:
        ConfigError: no such file, or every mistake that EPANET finds in it, one line each.
    """
    try:
        if Path(path).stat().st_size > INP_BYTES_MAX:
            raise ConfigError([f"{path}: larger than {INP_BYTES_MAX >> 20} MiB"])
        body = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    digest = hashlib.sha256(body).hexdigest()
    if (problem := _no_text(body)) or (problem := _marked(body)):
        raise ConfigError([f"{path}: {problem}"])
    _check(path)
    network = wntr("wntr.network")
    try:
        model = network.WaterNetworkModel(path)
    except _READER_ERRORS as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())[:300]}"]) from None
    found = Network(path, digest, _nodes(model), _links(model), model)
    if problems := _mistakes(found):
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return found


def _no_text(body: bytes) -> str:
    """Why this is no text file; empty: it is one."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is no text in UTF-8 (byte {error.start})"
    return f"is no text (byte {body.index(0)} is zero)" if 0 in body else ""


def _marked(body: bytes) -> str:
    return (
        "begins with a byte-order mark, which EPANET does not read; save it without"
        if body.startswith(BOM_UTF8)
        else ""
    )


def engine(inp: str, folder: str) -> Any:
    """EPANET with the file `inp` opened; its own files go into `folder`. EpanetException: what it does not take."""
    toolkit = wntr("wntr.epanet.toolkit")
    # It warns of every step with low pressure; whoever reads the pressures sees them.
    logging.getLogger("wntr.epanet.toolkit").setLevel(logging.CRITICAL)
    made = toolkit.ENepanet(inp, str(Path(folder) / "report.txt"), "")
    made.ENopen()
    return made


def _check(path: str) -> None:
    """ConfigError with what EPANET says of the file."""
    failure = wntr("wntr.epanet.exceptions").EpanetException
    toolkit = wntr("wntr.epanet.toolkit")
    logging.getLogger("wntr.epanet.toolkit").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="citynet-inp-") as folder:
        report = Path(folder) / "report.txt"
        one = toolkit.ENepanet(path, str(report), "")
        try:
            one.ENopen()
        except failure as error:
            one.ENclose()  # writes the report
            raise ConfigError([f"{path}: {line}" for line in _reported(report, str(error))]) from None
        one.ENclose()


def _reported(report: Path, otherwise: str) -> list[str]:
    """Mistakes of a report, each with the line that it is about."""
    lines = report.read_text("utf-8", "replace").splitlines() if report.exists() else []
    found = []
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith("Error") and not text.startswith("Error 200"):
            about = lines[number + 1].strip() if text.endswith(":") and number + 1 < len(lines) else ""
            found.append(f"{text} {about}".strip())
    return found[:_PROBLEMS_MAX] or [otherwise]


def _nodes(model: Any) -> dict[str, Node]:
    found = {}
    for name, node in model.nodes():
        x, y = node.coordinates
        kind = str(node.node_type).lower()
        height = float(node.base_head if kind == RESERVOIR else node.elevation)
        demand = 0.0
        if kind == JUNCTION:
            means = [
                entry.base_value
                * (float(entry.pattern.multipliers.mean()) if entry.pattern is not None and len(entry.pattern) else 1.0)
                for entry in node.demand_timeseries_list
            ]
            demand = float(sum(means)) * float(model.options.hydraulic.demand_multiplier)
        found[name] = Node(name, kind, float(x), float(y), height, demand, str(node.tag or ""))
    return found


def _links(model: Any) -> dict[str, Link]:
    found = {}
    for name, link in model.links():
        kind = str(link.link_type).lower()
        found[name] = Link(
            name, kind, link.start_node_name, link.end_node_name,
            float(link.length) if kind == PIPE else 0.0, 0.0 if kind == PUMP else float(link.diameter),
        )  # fmt: skip
    return found


def _mistakes(network: Network) -> list[str]:
    nodes = network.nodes.values()
    problems = []
    if len(network.nodes) > NODES_MAX:
        problems.append(f"{len(network.nodes)} nodes, at most {NODES_MAX}")
    if not any(node.demand_m3_s > 0.0 for node in nodes):
        problems.append("[JUNCTIONS]: nobody uses water, so there is nothing to measure")
    if len({(node.x, node.y) for node in nodes}) < min(2, len(network.nodes)):
        problems.append("[COORDINATES]: missing; without them nobody knows where a node stands")
    return problems
