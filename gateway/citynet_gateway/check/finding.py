"""What a check says: one thing that was tried, and how it went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. Warnings do not change the exit code."""

    what: str
    verdict: Verdict
    text: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)
