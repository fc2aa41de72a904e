"""What the spool knows in memory of each epoch: its segments, how far it was accepted, claimed, acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from citynet.control import Stream
from citynet_gateway.spool.port import Span
from citynet_gateway.spool.segment import SegmentName

DROPS_MAX = 8  # ranges of one epoch; they alternate only where byte and age cap do


@dataclass(slots=True)
class Segment:
    """A segment file with the records from `name.first` to `last`; only its first `size` bytes are synced and count.

    `headless`: its header is broken, so the source tokens of what lies before it are in the segments before it only.
    """

    name: SegmentName
    size: int
    last: int
    damaged: bool = False
    headless: bool = False
    begun_s: int | None = None  # on the spool's own clock; None: its header tells


@dataclass(frozen=True, slots=True)
class Drop:
    """Records `first`..`last` were given up, unacknowledged, for `reason`."""

    first: int
    last: int
    reason: str


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
    drops: list[Drop] = field(default_factory=list)

    def drop(self, first: int, last: int, reason: str) -> None:
        """Book a loss behind those booked before; adjoining ones of one reason are one, and of very many the oldest are."""
        if self.drops and self.drops[-1].reason == reason and self.drops[-1].last + 1 == first:
            first = self.drops.pop().first
        self.drops.append(Drop(first, last, reason))
        while len(self.drops) > DROPS_MAX:
            older, newer = self.drops[:2]
            self.drops[:2] = [Drop(older.first, newer.last, newer.reason)]

    @property
    def released(self) -> int:
        """Up to where nothing needs to be kept: acknowledged, or given up. What is given up is always the oldest there is."""
        return max(self.acked, self.drops[-1].last if self.drops else 0)

    def dropped_at(self, seq: int) -> Drop | None:
        return next((drop for drop in self.drops if drop.first <= seq <= drop.last), None)

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
