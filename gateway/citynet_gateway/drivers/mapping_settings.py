"""Settings of foreign payloads on the local broker: tables ``[[gateway.mappings]]``."""

from __future__ import annotations

import re
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, Field, model_validator

from citynet.ids import is_id

_LEVEL = re.compile(r"\{(\d+)\}")
_PATH = re.compile(r"(\$\.)?[^.\s]+(\.[^.\s]+)*")
_NUMBERS = frozenset({"s", "ms", "us"})


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


def _path(text: str) -> str:
    if text and not _PATH.fullmatch(text):
        raise ValueError("must be names and positions with dots between them, such as data.0.value")
    return text


def _filter(text: str) -> str:
    levels = text.split("/")
    if any(("+" in level or "#" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
        raise ValueError("+ must stand for a whole level, # for all last ones")
    if text.startswith("$"):
        raise ValueError("topics of the broker itself are no field messages")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone on this machine, such as Asia/Shanghai") from None
    return text


Path = Annotated[str, AfterValidator(_path)]


class MappedValue(BaseModel, extra="forbid", frozen=True):
    """One value of a payload. What it becomes is value × scale + offset."""

    path: Path = Field(min_length=1, max_length=200, description="where it stands in a record; from the top with $.")
    metric: Annotated[str, AfterValidator(_identifier)] = Field(description="what it is called here")
    unit: str = Field("", max_length=32, description="its unit after scale and offset, for people")
    scale: float = Field(1.0, allow_inf_nan=False, description="it is multiplied by this")
    offset: float = Field(0.0, allow_inf_nan=False, description="this is added")
    words: dict[str, float] = Field({}, max_length=64, description="numbers for texts, such as { on = 1, off = 0 }")
    required: bool = Field(False, description="a record without it is kept as a raw note as well")


class MappingSettings(BaseModel, extra="forbid", frozen=True):
    """JSON of another maker on topics of its own."""

    topic: Annotated[str, AfterValidator(_filter)] = Field(
        min_length=1, max_length=200, description="topic filter to subscribe to, such as plc/+/data"
    )
    device: str = Field("", max_length=200, description="the device; {2} stands for the topic's second level")
    device_path: Path = Field("", max_length=200, description="or where its name stands in a record")
    records: Path = Field("", max_length=200, description="where the list of records stands; unset: the payload itself")
    time_path: Path = Field("", max_length=200, description="where the time stands; unset: time of acceptance")
    time_format: str = Field(
        "ms",
        min_length=1,
        max_length=64,
        description="s, ms or us since 1970, iso, or a pattern such as %Y-%m-%d %H:%M:%S",
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field("UTC", description="zone of times that name none")
    values: list[MappedValue] = Field(min_length=1, max_length=1_000, description="what is read")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = []
        if bool(self.device) == bool(self.device_path):
            problems.append("one of device and device_path is needed")
        levels = self.topic.split("/")
        known = len(levels) - 1 if levels[-1] == "#" else len(levels)
        problems += [
            f"device: {{{number}}} is no level of {self.topic}"
            for number in _LEVEL.findall(self.device)
            if not 1 <= int(number) <= known
        ]
        if self.device and not is_id(_LEVEL.sub("x", self.device)):
            problems.append("device: must become 1..64 of A-Z a-z 0-9 . _ -")
        if self.time_format not in (*_NUMBERS, "iso") and "%" not in self.time_format:
            problems.append(f"time_format: {self.time_format!r} is none of s, ms, us, iso and has no %")
        metrics = [value.metric for value in self.values]
        problems += [f"metric {name} is there twice" for name in sorted({m for m in metrics if metrics.count(m) > 1})]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def overlap(first: str, second: str) -> bool:
    """Whether a topic can match both filters: the broker may deliver it twice then."""
    ours, theirs = first.split("/"), second.split("/")
    for mine, other in zip(ours, theirs, strict=False):
        if "#" in (mine, other):
            return True
        if "+" not in (mine, other) and mine != other:
            return False
    return len(ours) == len(theirs) or ((ours + theirs).count("#") > 0 and _one_ends(ours, theirs))


def _one_ends(ours: list[str], theirs: list[str]) -> bool:
    """``a/#`` matches ``a`` as well."""
    longer, shorter = sorted((ours, theirs), key=len, reverse=True)
    return len(longer) == len(shorter) + 1 and longer[-1] == "#"
