"""How far event time is known to have come, per source: the clock of rules that say "no data for".

Silence proves nothing while readings may still be on their way. A source's watermark moves with the server's clock only
while its gateway says that it holds no telemetry back; otherwise it stands at the newest reading that came. The server's
own watermark (for "the gateway itself is silent") moves once a new connection has settled. Pure: time is an argument.
"""

from __future__ import annotations

SERVER = ""
_HELD_UP_US = 30_000_000  # ticks come every second or so


class Watermarks:
    """Watermarks in µs since 1970, `settle_us` behind the clock."""

    def __init__(self, settle_us: int, settle_after_connect_us: int) -> None:
        self._settle_us = settle_us
        self._settle_after_connect_us = settle_after_connect_us
        self._connected_us: int | None = None
        self._ticked_us: int | None = None
        self._direct: set[str] = set()
        self._draining: dict[str, int] = {}
        self._moved: dict[str, int] = {}

    def connected(self, now_us: int) -> None:
        """A connection to the broker was made; what was queued meanwhile is about to come."""
        self._connected_us = now_us

    def lost(self) -> None:
        self._connected_us = None

    def batch(self, gateway: str, newest_us: int | None, backlog: int, received_us: int) -> None:
        """A telemetry batch came whose newest reading is of `newest_us`; the gateway holds `backlog` more records."""
        limit = received_us - self._settle_us
        if backlog <= 0:
            self._move(gateway, limit)
        elif newest_us is not None:
            self._move(gateway, min(newest_us, limit))

    def alarm_batch(self, gateway: str, backlog: int, received_us: int) -> None:
        """A batch of the alarm stream came (it carries the gateway's own heartbeat); `backlog` more records are to follow."""
        if backlog > 0:
            self._draining[gateway] = received_us
        else:
            self._draining.pop(gateway, None)

    def idle(self, gateway: str, received_us: int) -> None:
        """The gateway said that everything it accepted is acknowledged."""
        self._move(gateway, received_us - self._settle_us)

    def direct(self, device: str) -> None:
        """A device without a gateway was heard; it is its own source."""
        self._direct.add(device)

    def tick(self, now_us: int, *, is_drained: bool) -> None:
        """The clock moved. `is_drained`: nothing waits to be committed."""
        before, self._ticked_us = self._ticked_us, now_us
        if self._connected_us is None:
            return
        if before is not None and not before <= now_us <= before + _HELD_UP_US:
            # The clock was stepped, or we stood still for a while: settle anew, as after a connect.
            self._connected_us = now_us
        if not is_drained:
            return
        if now_us - self._connected_us < self._settle_after_connect_us:
            return
        # Heartbeats of the past still come in from a gateway that was cut off: it is not silent again after each of them.
        oldest_us = now_us - self._settle_after_connect_us
        self._draining = {gateway: at_us for gateway, at_us in self._draining.items() if at_us > oldest_us}
        for source in self._direct if self._draining else (SERVER, *self._direct):
            self._move(source, now_us - self._settle_us)

    def take(self) -> dict[str, int]:
        """What moved since the last call."""
        moved, self._moved = self._moved, {}
        return moved

    def _move(self, source: str, to_us: int) -> None:
        if to_us > self._moved.get(source, 0):
            self._moved[source] = to_us
