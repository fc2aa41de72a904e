"""What a worker knows between commits, and what of it planning some parcels needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from citynet.wire import Header
from citynet_ingest.clones import EpochWatch
from citynet_ingest.intake import DIGEST_BYTES
from citynet_ingest.parcel import (
    BatchParcel,
    DirectParcel,
    HelloParcel,
    Parcel,
    PoisonParcel,
    RedriveParcel,
    StatusParcel,
)
from citynet_ingest.rollup.buckets import Rollup
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine

CursorKey = tuple[str, str, int]


class Receipts:
    """Digests of the last committed direct messages: more than can be in flight, so a redelivery is always among them."""

    def __init__(self, keep: int) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()  # oldest first
        self._keep = keep
        self._stored = 0

    def load(self, block: bytes) -> None:
        """Add digests as they were stored, one after the other."""
        for start in range(0, len(block), DIGEST_BYTES):
            self.add(block[start : start + DIGEST_BYTES])

    def is_trim_due(self) -> bool:
        """Whether the store holds a good deal more than is kept; asked when it is going to be trimmed then."""
        is_due = self._stored > self._keep + self._keep // 4
        if is_due:
            self._stored = self._keep
        return is_due

    def add(self, digest: bytes) -> None:
        self._stored += 1
        known = self._known
        if digest in known:  # after a broker's restart packet ids, and so digests, come again: the newest counts
            known.move_to_end(digest)
            return
        known[digest] = None
        if len(known) > self._keep:
            known.popitem(last=False)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known


@dataclass(slots=True)
class State:
    """What a worker knows between commits; all of it can be read back from the database."""

    engine: Engine
    receipts: Mapping[int, Receipts]  # by lane; has every lane it is asked for
    watermarks: Watermarks
    rollup: Rollup = field(default_factory=Rollup)
    cursors: dict[CursorKey, int] = field(default_factory=dict)
    epochs: EpochWatch = field(default_factory=EpochWatch)
    broker_dropped: int | None = None
    keys: dict[bytes, bytes] = field(
        default_factory=dict
    )  # known keys of the messages being planned, with their bodies


def cursor_keys(parcels: Iterable[Parcel]) -> set[CursorKey]:
    """The cursors that planning these parcels needs."""
    keys: set[CursorKey] = set()
    for parcel in parcels:
        if isinstance(parcel, BatchParcel | PoisonParcel) and parcel.header is not None:
            keys.add(cursor_of(parcel.header))
        elif isinstance(parcel, RedriveParcel) and parcel.cursor_key is not None:
            keys.add(parcel.cursor_key)
        elif isinstance(parcel, HelloParcel):
            keys.update((parcel.gateway, held.st, held.ep) for held in parcel.hello.held)
        elif isinstance(parcel, StatusParcel):
            keys.update((parcel.gateway, claim.st, claim.ep) for claim in parcel.status.claims)
    return keys


def names_of(parcels: Iterable[Parcel]) -> Iterable[tuple[tuple[str, ...], str]]:
    """(series names, source) of everything that the parcels mention."""
    for parcel in parcels:
        if isinstance(parcel, BatchParcel):
            yield parcel.batch.names, parcel.header.gateway
        elif isinstance(parcel, DirectParcel):
            yield parcel.names, parcel.device
        elif isinstance(parcel, RedriveParcel):
            yield from names_of([again for again in (parcel.batch, parcel.direct) if again is not None])


def message_keys(parcels: Iterable[Parcel]) -> list[bytes]:
    """Digests of the keys that these parcels carry."""
    messages = (parcel.direct if isinstance(parcel, RedriveParcel) else parcel for parcel in parcels)
    return [message.key.digest for message in messages if isinstance(message, DirectParcel) and message.key is not None]


def cursor_of(header: Header) -> CursorKey:
    """The cursor that a batch moves."""
    return header.gateway, header.stream, header.epoch
