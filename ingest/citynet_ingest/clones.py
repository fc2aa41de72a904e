"""Two machines under one gateway id (a cloned card): seen by their epochs, which take turns.

A gateway that restarts goes from one epoch to the next and, within a stream, never back: what is left of the old epoch
is sent first. One return can happen honestly (the server lost its newest commits, say); two within the window cannot. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW_US = 600 * 1_000_000
RETURNS_MIN = 2
TELL_AGAIN_US = 60 * 1_000_000
_LEFT_MAX = 8


@dataclass(slots=True)
class _Seen:
    """Epochs of one stream of a gateway: the one that moved last, those it moved from (oldest first), and when it went back."""

    epoch: int
    left: list[int] = field(default_factory=list)
    returns_us: list[int] = field(default_factory=list)
    told_us: int = -TELL_AGAIN_US


class EpochWatch:
    """Watches which epoch of a stream brings new records. About 300 bytes a stream; forgets with the process."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def moved(self, gateway: str, stream: str, epoch: int, at_us: int) -> int | None:
        """New records of this epoch came at `at_us`. Returns the epoch it takes turns with, if that is to be told now."""
        seen = self._seen.get((gateway, stream))
        if seen is None:
            self._seen[gateway, stream] = _Seen(epoch)
            return None
        if seen.epoch == epoch:
            return None
        rival, seen.epoch = seen.epoch, epoch
        if epoch in seen.left:
            recent = [moment for moment in seen.returns_us if at_us - moment < WINDOW_US]
            seen.returns_us = [*recent[-RETURNS_MIN:], at_us]
        if rival not in seen.left:
            seen.left = [*seen.left, rival][-_LEFT_MAX:]
        if len(seen.returns_us) < RETURNS_MIN or at_us - seen.told_us < TELL_AGAIN_US:
            return None
        seen.told_us = at_us
        return rival
