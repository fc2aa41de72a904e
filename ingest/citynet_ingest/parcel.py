"""Parcels: what a message from the broker is once it is understood, on its way to a commit."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from citynet.batch import Batch
from citynet.control import Hello, Status
from citynet.formats import Reject, Uplink
from citynet.notes import LossNote, Note
from citynet.reading import Reading
from citynet.wire import Header


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a parcel came from: enough to acknowledge it, to recognise it again, and to keep it as dead letter."""

    topic: str
    packet_id: int
    generation: int
    duplicate: bool
    received_us: int
    content_type: str
    payload: bytes
    lane: int = 0  # whose session it came by
    reply_topic: str = ""
    correlation: bytes = b""


class BatchParcel(msgspec.Struct, frozen=True, gc=False):
    """A batch of a gateway: sequence numbers `header.seq0` .. `header.last`, every one accounted for."""

    origin: Origin
    header: Header
    batch: Batch
    notes: tuple[tuple[int, Note], ...] = ()  # (sequence number, note)

    def after(self, seq: int) -> BatchParcel:
        """The part above sequence number `seq` (an overlap with what is stored already is cut away)."""
        if seq < self.header.seq0:
            return self
        header = replace(self.header, seq0=seq + 1, count=self.header.last - seq)
        rejects = [(at, reject) for at, reject in self.batch.rejects if at > seq]
        return BatchParcel(
            self.origin, header, self.batch.picked(self.batch.seq > seq, rejects), self._notes_after(seq)
        )

    def _notes_after(self, seq: int) -> tuple[tuple[int, Note], ...]:
        """Notes above `seq`; a loss that reaches across it is cut there."""
        kept: list[tuple[int, Note]] = []
        for at, note in self.notes:
            if at > seq:
                kept.append((at, note))
            elif isinstance(note, LossNote) and note.last > seq:
                kept.append((seq + 1, replace(note, first=seq + 1)))
        return tuple(kept)


class Key(msgspec.Struct, frozen=True, gc=False):
    """What recognises a message that its own sender may send again: the hash of its name, and of the body that it had.

    An empty `body` says that the name is enough.
    """

    digest: bytes
    body: bytes


class DirectParcel(msgspec.Struct, frozen=True, gc=False):
    """A message of a device without a gateway, or of a platform that speaks for its devices.

    `names` are those of the readings; `digest` recognises a redelivery by the broker, `key`, if there is one, by anybody.
    `is_whole`: the origin's payload is that message.
    """

    origin: Origin
    device: str
    names: tuple[str, ...]
    readings: list[Reading]
    rejects: list[Reject]
    digest: bytes
    key: Key | None = None
    uplink: Uplink | None = None
    is_whole: bool = True


class PoisonParcel(msgspec.Struct, frozen=True):
    """A message that cannot be understood. With a header its records have numbers, so it is accounted for and acknowledged.

    `key` is that of a message without sequence numbers, kept for the day on which it can be read.
    """

    origin: Origin
    reason: str
    where: str
    detail: str
    header: Header | None = None
    key: Key | None = None


class HelloParcel(msgspec.Struct, frozen=True):
    origin: Origin
    gateway: str
    hello: Hello


class StatusParcel(msgspec.Struct, frozen=True):
    origin: Origin
    gateway: str
    status: Status


class BrokerParcel(msgspec.Struct, frozen=True):
    """What the broker says of itself: how many messages it has dropped since its start."""

    origin: Origin
    dropped: int


class RedriveParcel(msgspec.Struct, frozen=True):
    """A dead letter that is tried again: as a batch, as readings of a message, or with the reason why it still fails.

    `seq` is the first of the letter's `records` sequence numbers, booked on `cursor` (gateway, stream, epoch); both are None
    if they have none.
    """

    origin: Origin
    letter: int
    by: str
    seq: int | None
    records: int
    cursor: tuple[str, str, int] | None
    batch: BatchParcel | None = None
    direct: DirectParcel | None = None
    failure: Reject | None = None

    @property
    def cursor_key(self) -> tuple[str, str, int] | None:
        """The cursor (gateway, stream, epoch) that its records are, or would be, booked on."""
        if self.batch is not None:
            header = self.batch.header
            return header.gateway, header.stream, header.epoch
        return self.cursor

    def failed(self, why: Reject) -> RedriveParcel:
        return msgspec.structs.replace(self, batch=None, direct=None, failure=why)


class PassedParcel(msgspec.Struct, frozen=True):
    """Another lane's business: nothing to be done but to acknowledge it when its turn comes (MQTT 5, 4.6: PUBACK in the order
    of receipt)."""

    origin: Origin


Parcel = (
    BatchParcel | DirectParcel | PoisonParcel | HelloParcel | StatusParcel | BrokerParcel | RedriveParcel | PassedParcel
)


_PARCEL_BYTES = 1_000  # objects around a payload
_ROW_BYTES = 29  # columns of a decoded reading: index, time, value, quality, sequence number
_OBJECT_BYTES = 400  # a reading, reject or note as an object


def weigh(parcel: Parcel) -> tuple[Parcel, int, int]:
    """The parcel, its readings (at least 1; they cut commits), and about how many bytes of memory it takes while it waits:
    decoded columns are several times their packed form."""
    weight = _PARCEL_BYTES + len(parcel.origin.payload)
    if isinstance(parcel, DirectParcel):
        readings = len(parcel.readings)
        return parcel, readings or 1, weight + _OBJECT_BYTES * (readings + len(parcel.rejects))
    if isinstance(parcel, BatchParcel):
        readings = len(parcel.batch)
        objects = len(parcel.batch.rejects) + len(parcel.notes)
        return parcel, readings or 1, weight + _ROW_BYTES * readings + _OBJECT_BYTES * objects
    return parcel, 1, weight
