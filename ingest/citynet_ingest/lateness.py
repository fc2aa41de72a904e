"""Lateness bounds: of which series how late readings may come and still be taken in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from pydantic import BaseModel, Field

from citynet_rules.engine import SeriesInfo

ENTRIES_MAX = 64


class LatenessSettings(BaseModel, extra="forbid", frozen=True):
    """Series by name, and their bound."""

    devices: tuple[str, ...] = Field(("*",), min_length=1, max_length=64, description="globs of device names")
    metrics: tuple[str, ...] = Field(("*",), min_length=1, max_length=64, description="globs of metrics")
    bound_s: float = Field(
        ge=0, le=86_400, description="how late a reading may come behind its series' newest; its rules wait that long"
    )

    def selects(self, info: SeriesInfo) -> bool:
        """Whether this entry is about a series."""
        return any(fnmatchcase(info.device, glob) for glob in self.devices) and any(
            fnmatchcase(info.metric, glob) for glob in self.metrics
        )


def bounds_of(entries: Sequence[LatenessSettings]) -> Callable[[SeriesInfo], int] | None:
    """The bound of a series, µs: of the first entry that selects it, else 0. None if there is no entry."""
    if not entries:
        return None

    def bound_us(info: SeriesInfo) -> int:
        return next((round(entry.bound_s * 1e6) for entry in entries if entry.selects(info)), 0)

    return bound_us
