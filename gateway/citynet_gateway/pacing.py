"""How fast batches may go out, pure: a cap of bytes a second, and no more on its way than a thin link delivers soon.

Alarms are never held back, so they must not find a queue: telemetry in flight is bounded by how long the broker takes to
confirm it. The bound grows while confirmations come quickly and shrinks when one takes longer than `DELAY_S_MAX`. Time is
an argument.
"""

from __future__ import annotations

from citynet.control import Stream
from citynet.wire import ALARM

DELAY_S_MAX = 2.0
INFLIGHT_BYTES_MIN = 4 << 10
INFLIGHT_BYTES_FIRST = 16 << 10
INFLIGHT_BYTES_MAX = 8 << 20
_SHRINK = 0.7
BURST_S = 1.0


class Pacer:
    """Args: rate_bytes_s: cap of the average, in bytes a second; 0: none. Alarms are counted and not held back."""

    def __init__(self, rate_bytes_s: int = 0) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._level_bytes = BURST_S * rate_bytes_s  # below 0: owed by what went out already
        self._level_at_s: float | None = None
        self._inflight: dict[int, tuple[int, float]] = {}
        self.inflight_bytes = 0
        self.inflight_bytes_max = INFLIGHT_BYTES_FIRST
        self._shrunk_at_s: float | None = None

    def may_send(self, stream: Stream, now_s: float) -> bool:
        """Whether a batch of the stream may go out now."""
        if stream == ALARM:
            return True
        if self._rate_bytes_s and self._level(now_s) < 0:
            return False
        return not self._inflight or self.inflight_bytes < self.inflight_bytes_max

    def free_at_s(self, now_s: float) -> float | None:
        """When the cap lets telemetry go again; None if it does not hold it back."""
        owed_bytes = -self._level(now_s) if self._rate_bytes_s else 0
        return now_s + owed_bytes / self._rate_bytes_s if owed_bytes > 0 else None

    def sent(self, ident: int, size_bytes: int, now_s: float) -> None:
        """A publication of that size is on its way."""
        self._level_bytes = self._level(now_s) - size_bytes
        self._inflight[ident] = size_bytes, now_s
        self.inflight_bytes += size_bytes

    def delivered(self, ident: int, now_s: float) -> None:
        """The broker has confirmed it. Others than those told by `sent` are nobody's."""
        size_bytes, sent_at_s = self._inflight.pop(ident, (0, now_s))
        if not size_bytes:
            return
        self.inflight_bytes -= size_bytes
        if now_s - sent_at_s <= DELAY_S_MAX:
            # Twofold each way until the link was full once, from then on a batch each way.
            share = 1.0 if self._shrunk_at_s is None else size_bytes / self.inflight_bytes_max
            self.inflight_bytes_max = min(INFLIGHT_BYTES_MAX, self.inflight_bytes_max + int(share * size_bytes))
        elif self._shrunk_at_s is None or sent_at_s > self._shrunk_at_s:  # what was on its way by then says nothing new
            self.inflight_bytes_max = max(INFLIGHT_BYTES_MIN, int(self.inflight_bytes_max * _SHRINK))
            self._shrunk_at_s = now_s

    def part(self) -> None:
        """The connection is gone, and what was on its way with it."""
        self._inflight.clear()
        self.inflight_bytes = 0
        self.inflight_bytes_max = min(self.inflight_bytes_max, INFLIGHT_BYTES_FIRST)
        self._shrunk_at_s = None

    def _level(self, now_s: float) -> float:
        if self._level_at_s is not None:
            gained_bytes = (now_s - self._level_at_s) * self._rate_bytes_s
            self._level_bytes = min(BURST_S * self._rate_bytes_s, self._level_bytes + gained_bytes)
        self._level_at_s = now_s
        return self._level_bytes
