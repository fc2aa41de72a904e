"""What the spool knows in memory of each epoch: its segments, how far it was accepted, claimed, acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from citynet.control import Stream
from citynet_gateway.spool.port import Span
from citynet_gateway.spool.segment import SegmentName


@dataclass(slots=True)
class Segment:
    """A segment file with the records from `name.first` to `last`; only its first `size` bytes are synced and count."""

    name: SegmentName
    size: int
    last: int
    damaged: bool = False


@dataclass(slots=True)
class Epoch:
    """One epoch in one stream.

    `synced` is the highest number that is on this storage (for older epochs: that was found there), `claimed`
    the highest one the server was told of, `acked` the highest one it acknowledged.
    """

    stream: Stream
    opening: int
    number: int
    live: bool
    acked: int = 0
    claimed: int = 0
    synced: int = 0
    tail_bytes: int = 0  # of the last segment, as the watermark knows it; 0: it must be scanned
    segments: list[Segment] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The highest number there is. What was claimed and is no longer here belongs to it: as a loss."""
        return self.synced if self.live else max(self.synced, self.claimed, self.acked)

    @property
    def finished(self) -> bool:
        return not self.live and not self.segments and self.acked >= self.last

    def span(self) -> Span:
        return Span(self.number, self.acked, self.last, self.live)


class Tokens:
    """The last `size_max` source tokens of a stream.

    Oldest first. Only durable ones may go into a segment's header.
    """

    def __init__(self, size_max: int, durable: Iterable[bytes] = ()) -> None:
        self._size_max = size_max
        self._durable: dict[bytes, None] = {}
        self._pending: dict[bytes, None] = {}
        self._settle(durable)

    def __contains__(self, token: bytes) -> bool:
        return token in self._durable or token in self._pending

    def add(self, token: bytes) -> None:
        """Remember the token of a frame that is not yet synced."""
        if token:
            self._pending[token] = None

    def synced(self) -> None:
        """Everything pending is durable now."""
        self._settle(self._pending)
        self._pending = {}

    def durable(self) -> list[bytes]:
        return list(self._durable)

    def _settle(self, tokens: Iterable[bytes]) -> None:
        for token in tokens:
            self._durable.pop(token, None)
            self._durable[token] = None
        while len(self._durable) > self._size_max:
            del self._durable[next(iter(self._durable))]
