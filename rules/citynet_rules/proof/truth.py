"""What a simulated city staged: the incidents and devices in the header of its truth file (docs/truth-file.md).

Of the file only the first line is read; keys that are unknown here are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from citynet.errors import CitynetError
from citynet_rules.rule import COLOURS, level_of

VERSION = 1
_DECAYS = 4.0  # after four time constants 2 % of the effect are left
_LINE_BYTES_MAX = 256 << 20


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened at each of `devices`, from `start_us` until its effect has died away (`over_us`)."""

    id: str
    domain: str
    metric: str
    devices: tuple[str, ...]
    start_us: int
    over_us: int
    rule: str | None  # the alert that has to come, and its level
    level: int


@dataclass(frozen=True, slots=True)
class Truth:
    """`series` are (device, metric, gateway); `digest` names the header."""

    started_at_us: int
    gateways: frozenset[str]
    series: tuple[tuple[str, str, str], ...]
    incidents: tuple[Incident, ...]
    digest: str

    @property
    def sensors(self) -> int:
        """How many devices there are."""
        return len({device for device, _, _ in self.series})


def read_truth(path: Path) -> Truth:
    """The header of a truth file.

    Raises:
        CitynetError: no such file, or its first line is no header.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(_LINE_BYTES_MAX)
    except OSError as error:
        raise CitynetError(f"truth file {path}: {error.strerror}") from None
    try:
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("t") != "header":
            raise ValueError("no header")
        if header["v"] != VERSION:
            raise ValueError(f"version {header['v']!r}, this reader knows {VERSION}")
        incidents = tuple(_incident(item) for item in header["incidents"])
        series = tuple(
            (str(item["device"]), str(entry["metric"]), str(item["gateway"]))
            for item in header["devices"]
            for entry in item["series"]
        )
        gateways = frozenset(map(str, header["gateways"]))
        digest = blake2b(line, digest_size=16).hexdigest()
        return Truth(int(header["started_at_us"]), gateways, series, incidents, digest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CitynetError(f"truth file {path}, line 1: {what[:200]}") from None


def _incident(item: Mapping[str, Any]) -> Incident:
    colour = item.get("expected_level")
    rule = item.get("expected_rule")
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"incident {item['id']}: level {colour!r} is none of {', '.join(COLOURS)}")
    start_us = int(item["start_us"])
    end_us = int(item["end_us"])
    return Incident(
        id=str(item["id"]),
        domain=str(item["domain"]),
        metric=str(item["metric"]),
        devices=tuple(str(device) for device in item["devices"]),
        start_us=start_us,
        over_us=end_us + round(_DECAYS * float(item.get("decay_s", 0.0)) * 1e6),
        rule=str(rule) if rule else None,
        level=level_of(colour) if colour is not None else 1,
    )
