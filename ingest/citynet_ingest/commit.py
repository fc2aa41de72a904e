"""A commit: everything that becomes durable together, and what may be answered once it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from citynet.batch import I32, SeriesBatch
from citynet.control import Ack, Outcome
from citynet_ingest.parcel import Key
from citynet_ingest.rollup.buckets import NOTHING, Closed
from citynet_rules.engine import Transition

NO_SERIES: I32 = np.empty(0, np.int32)


@dataclass(slots=True)
class CursorStep:
    """How far the cursor of a gateway's stream and epoch moves, and as what its records were booked."""

    gateway: str
    stream: str
    epoch: int
    before: int
    seq: int
    stored: int = 0
    dead_lettered: int = 0
    lost: int = 0
    noted: int = 0
    claimed: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    topic: str
    source: str | None
    stream: str | None
    epoch: int | None
    seq: int | None
    records: int
    reason: str
    place: str
    detail: str
    content_type: str
    payload: bytes
    digest: bytes
    received_us: int
    scope: str
    key: bytes | None = None  # of a whole message that its sender named
    key_body: bytes | None = None


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """Something that operators must see and that no reading tells; `count` adds up within the hour."""

    kind: Literal["broker_dropped", "gateway_cloned", "rules_spread"]
    object: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class Redriven:
    """A dead letter that was tried again; `failure` says why in vain."""

    letter: int
    by: str
    stored: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    gateway: str
    stream: str
    epoch: int
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class NoteRow:
    gateway: str
    stream: str
    epoch: int
    seq: int
    kind: str
    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    gateway: str
    online: bool
    body: str
    at_us: int


@dataclass(slots=True)
class UplinkSpan:
    """The uplinks of one device in a commit: counters `first` to `counter`, and what was passed over between them."""

    device: str
    first: int
    counter: int
    received: int = 1
    missing: int = 0
    restarts: int = 0

    def add(self, counter: int) -> None:
        """One more uplink. A counter that does not rise is that of a device which joined anew."""
        if counter > self.counter:
            self.missing += counter - self.counter - 1
        else:
            self.restarts += 1
        self.counter = counter
        self.received += 1


@dataclass(slots=True)
class Tally:
    """Records without sequence numbers, booked per worker."""

    stored: int = 0
    dead_lettered: int = 0
    duplicates: int = 0


@dataclass(slots=True)
class Commit:
    """One database transaction."""

    number: int
    rows: SeriesBatch
    bounded: I32 = field(
        default_factory=lambda: NO_SERIES
    )  # ids of series with a lateness bound: their rows may lie before others that are stored
    partials: Closed = NOTHING
    steps: list[CursorStep] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    redriven: list[Redriven] = field(default_factory=list)
    events: list[SystemEvent] = field(default_factory=list)
    broker_dropped: int | None = None  # the broker's counter, where it moved
    canaries: dict[str, int] = field(default_factory=dict)  # newest reading of a gateway's own, µs since 1970
    losses: list[Loss] = field(default_factory=list)
    notes: list[NoteRow] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)  # gateways that sent a batch
    statuses: list[GatewayStatus] = field(default_factory=list)
    claims: list[tuple[str, str, int, int]] = field(default_factory=list)  # gateway, stream, epoch, accepted
    transitions: Sequence[Transition] = ()
    digests: dict[int, list[bytes]] = field(default_factory=dict)  # by lane
    trims: list[int] = field(default_factory=list)  # lanes whose receipts are to be trimmed
    keys: list[Key] = field(default_factory=list)
    uplinks: dict[str, UplinkSpan] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    snapshot: bytes | None = None

    def is_empty(self) -> bool:
        """Whether there is nothing to write (only answers to give)."""
        return not (
            len(self.rows) or self.steps or self.dead or self.statuses or self.transitions or self.digests or self.keys
            or self.tally != Tally() or self.snapshot or self.redriven
            or self.events or self.broker_dropped is not None
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one message, to where its sender wants to hear it."""

    lane: int  # whose session the message came by
    topic: str
    correlation: bytes
    outcome: Outcome


@dataclass(slots=True)
class Answers:
    """What is said once the commit is durable: PUBACKs in order of receipt, then acknowledgements to gateways, and replies."""

    pubacks: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # packet ids by lane and generation
    acks: dict[tuple[str, str, int, str], Ack] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
