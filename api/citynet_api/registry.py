"""The registration document: what people know of devices, as JSON or JSON Lines, checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from citynet_api.errors import dotted, faults
from citynet_api.problems import Fault, Problem

NAME = r"^[A-Za-z0-9._-]{1,64}$"
_NO_NUL = r"^[^\x00]*$"  # PostgreSQL cannot store that character
JSON_TYPE = "application/json"
LINES_TYPES = ("application/x-ndjson", "application/jsonl", "application/json-lines")
_FAULTS_MAX = 50


class SeriesEntry(BaseModel):
    """A metric of a device: unit, physical range of its sensor, sampling interval. What is absent stays as it was."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    metric: str = Field(pattern=NAME)
    unit: str | None = Field(None, max_length=32, pattern=_NO_NUL)
    low: float | None = None
    high: float | None = None
    interval_s: float | None = Field(None, gt=0, le=366 * 86_400, description="seconds between its readings")

    @model_validator(mode="after")
    def _ordered(self) -> SeriesEntry:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class DeviceEntry(BaseModel):
    """A device. What is absent or null stays as it was; without a gateway it is one that sends by itself."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    device: str = Field(pattern=NAME)
    gateway: str | None = Field(None, pattern=NAME)
    kind: str | None = Field(None, max_length=64, pattern=_NO_NUL)
    district: str | None = Field(None, max_length=128, pattern=_NO_NUL)
    lon: float | None = Field(None, ge=-180, le=180, description="WGS 84")
    lat: float | None = Field(None, ge=-90, le=90, description="WGS 84")
    series: list[SeriesEntry] = Field([], max_length=256)

    @model_validator(mode="after")
    def _each_metric_once(self) -> DeviceEntry:
        repeated = repeats([entry.metric for entry in self.series])
        if repeated:
            raise ValueError(f"metric {repeated[0]!r} stands there twice")
        return self


def repeats(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, each once, in order of their second occurrence."""
    seen: set[str] = set()
    return list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]


def parse(body: bytes, content_type: str, devices_max: int) -> list[DeviceEntry]:
    """The devices of a registration document.

    Raises:
        Problem: 415 for another content type; 400 for bytes that are not JSON; 422 that names every mistake by its place,
            ``[3].series[0].metric`` in an array, ``line 4`` in JSON Lines.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in LINES_TYPES:
        entries = [(f"line {number}", _json(line, f"line {number}")) for number, line in _lines(body)]
    elif kind == JSON_TYPE:
        document = _json(body, "body")
        if not isinstance(document, list):
            raise _refusal([Fault(parameter="body", location="body", detail="must be an array of devices")])
        entries = [(f"[{index}]", item) for index, item in enumerate(document)]
    else:
        raise Problem("unsupported-media-type", f"Send {JSON_TYPE} (an array) or {LINES_TYPES[0]} (one device a line).")
    if len(entries) > devices_max:
        raise Problem("body-too-large", f"{len(entries)} devices; send at most {devices_max} at once.")
    return _devices(entries)


def _lines(body: bytes) -> list[tuple[int, bytes]]:
    return [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(
            "unreadable-body", f"{where}: {error}", [Fault(parameter=where, location="body", detail=str(error))]
        ) from None


def _devices(entries: Sequence[tuple[str, Any]]) -> list[DeviceEntry]:
    devices: list[DeviceEntry] = []
    found: list[Fault] = []
    for where, item in entries:
        try:
            devices.append(DeviceEntry.model_validate(item))
        except ValidationError as error:
            found += [_placed(where, entry) for entry in error.errors()]
        if len(found) >= _FAULTS_MAX:
            break
    for name in repeats([device.device for device in devices]):
        found.append(Fault(parameter="device", location="body", detail=f"{name!r} stands there twice"))
    if found:
        raise _refusal(found[:_FAULTS_MAX])
    return devices


def _placed(where: str, item: Any) -> Fault:
    fault = faults([{**item, "loc": ("body", *item["loc"])}])[0]
    path = dotted(item["loc"])
    joint = ": " if where.startswith("line") else "."
    return Fault(parameter=f"{where}{joint}{path}" if path else where, location="body", detail=fault.detail)


def _refusal(found: list[Fault]) -> Problem:
    return Problem("invalid-request", "; ".join(f"{fault.parameter}: {fault.detail}" for fault in found)[:1000], found)
