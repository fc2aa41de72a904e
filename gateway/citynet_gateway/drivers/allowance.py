"""How much nonsense a stranger may leave in the spool. Pure; time is an argument."""

from __future__ import annotations

BURST = 10.0
EVERY_S = 60.0  # one more for each of these
SOURCES_MAX = 256


class Allowance:
    """A bucket of raw notes for each source address: `BURST` at once, then one in `EVERY_S`."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # source: notes left, as of when

    def take(self, source: str, now_s: float) -> bool:
        """Whether this source may leave one more."""
        left, since_s = self._left.pop(source, (BURST, now_s))
        left = min(BURST, left + (now_s - since_s) / EVERY_S)
        self._left[source] = (left - 1 if left >= 1 else left, now_s)
        if len(self._left) > SOURCES_MAX:
            del self._left[next(iter(self._left))]
        return left >= 1
