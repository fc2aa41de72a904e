"""``citynet rules neighbours``: who stands beside whom, as the tables ``[neighbours.METRIC]`` of a rule file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import cos, hypot, radians
from pathlib import Path
from typing import Annotated

import typer

from citynet.errors import CitynetError
from citynet.runtime.command import command
from citynet_rules.kinds.witness import NEIGHBOURS_MAX

M_PER_DEG = 111_195.0  # of a meridian, on a sphere of 6,371 km
_LINES_MAX = 1_000_000
Beside = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Site:
    """A device with one metric of interest; metres east and north of anywhere."""

    device: str
    x_m: float
    y_m: float


@command
def neighbours(
    devices: Annotated[Path, typer.Argument(help="Registration documents, one a line, or a truth file.")],
    metrics: Annotated[list[str], typer.Option("--metric", help="Which metrics; may be given several times.")],
    count: Annotated[int, typer.Option(min=1, max=NEIGHBOURS_MAX, help="How many of the nearest.")] = 3,
    within_m: Annotated[float, typer.Option(min=1.0, help="How far away at most.")] = 3000.0,
) -> None:
    """Print the nearest devices with the same metric: a starting point for those who know the pipes."""
    documents = list(_documents(devices))
    for metric in metrics:
        sites = list(_sites(documents, metric))
        print(f"[neighbours.{metric}]")
        for device, others in nearest(sites, count, within_m):
            print(f"{json.dumps(device)} = {json.dumps(others)}")


def beside(documents: Iterable[Mapping[str, object]], metric: str, count: int = 3, within_m: float = 3000.0) -> Beside:
    """The table of a metric, from registration documents."""
    return {device: tuple(others) for device, others in nearest(_sites(documents, metric), count, within_m)}


def nearest(sites: Iterable[Site], count: int, within_m: float) -> Iterator[tuple[str, list[str]]]:
    """For each device by name its `count` nearest within `within_m`; those that have none are left out."""
    grid: dict[tuple[int, int], list[Site]] = {}
    ordered = sorted(sites, key=lambda site: site.device)
    for site in ordered:
        grid.setdefault(_cell(site, within_m), []).append(site)
    for site in ordered:
        column, row = _cell(site, within_m)
        around = [
            (hypot(other.x_m - site.x_m, other.y_m - site.y_m), other.device)
            for dx in (-1, 0, 1)
            for dy in (-1, 0, 1)
            for other in grid.get((column + dx, row + dy), ())
            if other.device != site.device
        ]
        found = [device for distance_m, device in sorted(around) if distance_m <= within_m][:count]
        if found:
            yield site.device, found


def _cell(site: Site, side_m: float) -> tuple[int, int]:
    return int(site.x_m // side_m), int(site.y_m // side_m)


def _documents(path: Path) -> Iterator[dict[str, object]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                found = json.loads(line)
                if number == 1 and isinstance(found, dict) and found.get("t") == "header":
                    yield from found["devices"]
                    return
                if not isinstance(found, dict) or number > _LINES_MAX:
                    raise ValueError("no registration document")
                yield found
    except OSError as error:
        raise CitynetError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CitynetError(f"{path}, line {number}: {error}") from None


def _sites(documents: Iterable[Mapping[str, object]], metric: str) -> Iterator[Site]:
    for each in documents:
        series = each.get("series")
        if not isinstance(series, list) or not any(one.get("metric") == metric for one in series):
            continue
        lon, lat = each.get("lon"), each.get("lat")
        if isinstance(lon, int | float) and isinstance(lat, int | float):
            east_m = M_PER_DEG * lon * cos(radians(lat))
            yield Site(str(each["device"]), east_m, M_PER_DEG * lat)
