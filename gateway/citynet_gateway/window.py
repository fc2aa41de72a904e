"""The uplink's decisions, pure: what to send next, what an acknowledgement means, when to ask again. Time is an argument.

Nothing is sent on a connection before the server has answered the hello with its cursors. When
acknowledgements stay away
the window does not send its batches blindly again: it says hello, and goes on behind the cursor that the
answer names. A server that is gone costs one small message per backoff step; a batch that was lost on the way
is sent again all the same.

Only one epoch of a stream is in flight at a time, the oldest first, so records become visible in the order of
acceptance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from citynet.control import Ack, Held, Hello, Stream
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.spool import Span

HELD_MAX = 1_024  # entries of one hello
STREAM_ORDER: tuple[Stream, ...] = (ALARM, TELEMETRY)  # alarms first


class Outcome(StrEnum):
    """What an acknowledgement came to; the values are the metric's labels."""

    ADVANCED = "advanced"
    REPEATED = "repeated"
    ANSWERED = "hello-answered"
    WENT_BACK = "gap"
    REGRESSED = "server-regressed"
    UNKNOWN_EPOCH = "unknown-epoch"
    FUTURE = "future"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of an acknowledgement; `acked` is what the spool may forget (None: nothing new)."""

    outcome: Outcome
    acked: int | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """Send records of `epoch` from `seq` on; the stream's backlog ends at `last`."""

    epoch: int
    seq: int
    last: int
    idle: bool  # nothing is in flight


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the window.

    Unacknowledged batches a stream, and the first and the longest wait for an answer.
    """

    batches_max: int = 8
    resend_after_s: float = 5.0
    resend_after_s_max: float = 20.0


class StreamWindow:
    """One stream's window. `spans` are the spool's epochs, oldest first, as of now."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._greeted = False
        self._awaiting: set[int] = set()
        self._confirmed: dict[int, int] = {}  # the server's cursor, as far as we know it; may lie below the watermark
        self._inflight: deque[int] = deque()  # last sequence number of every batch on its way
        self._epoch = 0  # the one in flight
        self._next = 1
        self._gap_at: int | None = None
        self._credit = 0
        self._waiting_since_s = 0.0

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    @property
    def unanswered(self) -> bool:
        """Whether the hello still lacks an answer for this stream."""
        return self._greeted and bool(self._awaiting)

    def greet(self, epochs: Sequence[int]) -> None:
        """A hello that names `epochs` goes out: forget what was in flight, wait for every answer."""
        self._greeted = True
        self._awaiting = set(epochs)
        self._inflight.clear()
        self._gap_at = None

    def part(self) -> None:
        """The connection is gone."""
        self._greeted = False
        self._inflight.clear()

    def take(self, ack: Ack, answers_hello: bool, spans: Sequence[Span], now_s: float) -> Verdict:
        """Judge an acknowledgement of this stream. `answers_hello`: its `ref` is that of our latest hello."""
        span = next((item for item in spans if item.epoch == ack.ep), None)
        if span is None:
            return Verdict(Outcome.UNKNOWN_EPOCH)
        if ack.seq > span.last and span.live:
            return Verdict(Outcome.FUTURE)
        # Of an older epoch the server may hold more than this storage kept; then it holds all of it.
        seq = min(ack.seq, span.last)
        known = self._confirmed.get(span.epoch, span.acked)
        self._credit = ack.credit
        self._confirmed = {item.epoch: self._confirmed.get(item.epoch, item.acked) for item in spans}
        if ack.why == "hello" and answers_hello:
            self._awaiting.discard(span.epoch)
            self._confirmed[span.epoch] = seq
            outcome = Outcome.ADVANCED if seq > known else Outcome.ANSWERED
        elif ack.why == "gap" and span.epoch == self._epoch and self._inflight:
            if self._gap_at == seq:  # every batch behind the gap is answered so; one going back is enough
                return Verdict(Outcome.REPEATED)
            self._gap_at = seq
            self._confirmed[span.epoch] = seq
            self._inflight.clear()
            outcome = Outcome.WENT_BACK
        elif seq > known:
            self._advance(span.epoch, seq)
            outcome = Outcome.ADVANCED
        else:
            return Verdict(Outcome.REPEATED)
        self._waiting_since_s = now_s
        if seq < span.acked:
            return Verdict(Outcome.REGRESSED)
        return Verdict(outcome, seq if seq > span.acked else None)

    def _advance(self, epoch: int, seq: int) -> None:
        self._confirmed[epoch] = seq
        if epoch == self._epoch:
            self._gap_at = None
            while self._inflight and self._inflight[0] <= seq:
                self._inflight.popleft()
            self._next = max(self._next, seq + 1)

    def want(self, spans: Sequence[Span]) -> Want | None:
        """What to send next, None when there is nothing, or no room in the window, or no answer to the hello yet."""
        if not self._greeted or self._awaiting or len(self._inflight) >= min(self._limits.batches_max, self._credit):
            return None
        if self._inflight:
            span = next((item for item in spans if item.epoch == self._epoch), None)
            if span is None or self._next > span.last:
                return None
            return Want(self._epoch, self._next, span.last, idle=False)
        span = self._oldest_unconfirmed(spans)
        if span is None:
            return None
        self._epoch, self._next = span.epoch, self._confirmed.get(span.epoch, span.acked) + 1
        return Want(self._epoch, self._next, span.last, idle=True)

    def _oldest_unconfirmed(self, spans: Sequence[Span]) -> Span | None:
        return next((item for item in spans if self._confirmed.get(item.epoch, item.acked) < item.last), None)

    def sent(self, last: int, now_s: float) -> None:
        """The wanted batch went out; it ends with `last`."""
        if not self._inflight:
            self._waiting_since_s = now_s
        self._inflight.append(last)
        self._next = last + 1

    def waiting_since_s(self, spans: Sequence[Span]) -> float | None:
        """Since when the server owes us something.

        An acknowledgement or credit. None when it owes nothing.
        """
        if not self._greeted or self._awaiting:
            return None  # the hello has its own clock
        if self._inflight or (self._credit <= 0 and self._oldest_unconfirmed(spans) is not None):
            return self._waiting_since_s
        return None


class Window:
    """Both streams and the hello they share. `random` gives the jitter."""

    def __init__(self, limits: Limits, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._streams: dict[Stream, StreamWindow] = {stream: StreamWindow(limits) for stream in STREAM_ORDER}
        self._ref = ""
        self._hello_at_s: float | None = None  # None: not connected
        self._attempts = 0
        self._patience_s = limits.resend_after_s

    def stream(self, stream: Stream) -> StreamWindow:
        return self._streams[stream]

    def hello(self, ref: str, spans: Mapping[Stream, Sequence[Span]], now_s: float, *, connected: bool) -> Hello:
        """The hello to send now; `connected` tells a new connection from asking again on the same one."""
        self._attempts = 0 if connected else self._attempts + 1
        full = min(self._limits.resend_after_s_max, self._limits.resend_after_s * 2 ** min(self._attempts, 16))
        self._patience_s = full * self._random.uniform(0.75, 1.25)
        self._ref, self._hello_at_s = ref, now_s
        held: list[Held] = []
        for stream in STREAM_ORDER:
            named = [*spans[stream][: HELD_MAX // 2 - 1], spans[stream][-1]]
            chosen = list({span.epoch: span for span in named}.values())
            held += [Held(span.epoch, stream, span.acked + 1, span.last) for span in chosen]
            self._streams[stream].greet([span.epoch for span in chosen])
        return Hello(ref, held)

    def part(self) -> None:
        """The connection is gone: nothing is due until the next hello."""
        self._hello_at_s = None
        for stream in self._streams.values():
            stream.part()

    def take(self, ack: Ack, spans: Sequence[Span], now_s: float) -> Verdict:
        """Judge an acknowledgement; `spans` are those of its stream."""
        verdict = self._streams[ack.st].take(ack, ack.ref == self._ref, spans, now_s)
        if verdict.outcome is Outcome.ADVANCED:
            self._attempts = 0
            self._patience_s = self._limits.resend_after_s
        return verdict

    def hello_due_at_s(self, spans: Mapping[Stream, Sequence[Span]]) -> float | None:
        """When to say hello again if nothing comes until then; None when the server owes us nothing."""
        if self._hello_at_s is None:
            return None
        waits = [stream.waiting_since_s(spans[name]) for name, stream in self._streams.items()]
        waits += [self._hello_at_s for stream in self._streams.values() if stream.unanswered]
        since = min((wait for wait in waits if wait is not None), default=None)
        return None if since is None else since + self._patience_s
