"""From parcels to a commit: which records are new, which were stored before, which must be sent again.

Pure apart from the state it is given (cursors, receipts, watermarks, rules engine), which it moves on. If the commit turns
out to be impossible that state is thrown away and rebuilt from the database: one place to reason about a crash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from citynet.batch import F64, I32, I64, U8, Batch, SeriesBatch
from citynet.control import Ack, AckCause, encode
from citynet.formats import Reject
from citynet.notes import ClockNote, EventNote, LossNote, RawNote
from citynet.wire import TELEMETRY, Header
from citynet_ingest.clones import EpochWatch
from citynet_ingest.commit import (
    Answers,
    Commit,
    CursorStep,
    GatewayStatus,
    Loss,
    NoteRow,
    Redriven,
    SystemEvent,
)
from citynet_ingest.deadletter import dead, dead_value, scope_of, storable
from citynet_ingest.intake import DIGEST_BYTES
from citynet_ingest.letter import WHOLE_BYTES_MAX, WHOLE_COPIES_MAX
from citynet_ingest.parcel import (
    BatchParcel,
    BrokerParcel,
    DirectParcel,
    HelloParcel,
    Parcel,
    PoisonParcel,
    RedriveParcel,
    StatusParcel,
)
from citynet_ingest.registry import Registry
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine

CANARY = "gateway_uptime_s"  # a gateway's reading of its own, in the alarm stream

CursorKey = tuple[str, str, int]
Columns = tuple[I32, I64, F64, U8]


class Receipts:
    """Digests of the last committed direct messages: more than can be in flight, so a redelivery is always among them."""

    def __init__(self, keep: int) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()  # oldest first
        self._keep = keep

    def load(self, blocks: Iterable[bytes]) -> None:
        self._known.clear()
        for block in blocks:
            for start in range(0, len(block), DIGEST_BYTES):
                self.add(block[start : start + DIGEST_BYTES])

    def add(self, digest: bytes) -> None:
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
    receipts: Receipts
    watermarks: Watermarks
    cursors: dict[CursorKey, int] = field(default_factory=dict)
    epochs: EpochWatch = field(default_factory=EpochWatch)
    broker_dropped: int | None = None


def cursor_keys(parcels: Iterable[Parcel]) -> set[CursorKey]:
    """The cursors that planning these parcels needs."""
    keys: set[CursorKey] = set()
    for parcel in parcels:
        if isinstance(parcel, BatchParcel | PoisonParcel) and parcel.header is not None:
            keys.add(_key(parcel.header))
        elif isinstance(parcel, RedriveParcel) and parcel.key is not None:
            keys.add(parcel.key)
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


def _key(header: Header) -> CursorKey:
    return header.gateway, header.stream, header.epoch


class Planner:
    """Plans one commit. Used once."""

    def __init__(self, state: State, registry: Registry, number: int, credit: int) -> None:
        self._state = state
        self._registry = registry
        self._credit = credit
        self._commit = Commit(number, SeriesBatch.empty())
        self._answers = Answers()
        self._steps: dict[CursorKey, CursorStep] = {}
        self._columns: list[Columns] = []
        self._direct: list[tuple[int, int, float, int]] = []
        self._heard: set[str] = set()
        self._gaps: dict[CursorKey, int] = {}

    def plan(self, parcels: Sequence[Parcel]) -> tuple[Commit, Answers]:
        """Commit and answers for these parcels, taken in order."""
        for parcel in parcels:
            self._take(parcel)
            origin = parcel.origin
            self._answers.generation = origin.generation
            if origin.packet_id:
                self._answers.packet_ids.append(origin.packet_id)
        self._flush_direct()
        commit = self._commit
        commit.steps = list(self._steps.values())
        commit.heard = sorted(self._heard)
        grouped = _joined(self._columns)
        fed = self._state.engine.feed(grouped)
        commit.rows = _for_storage(SeriesBatch(grouped.series, grouped.time_us, grouped.value, fed.quality))
        commit.transitions = [*fed.transitions, *self._state.engine.advance(self._state.watermarks.take())]
        return commit, self._answers

    def _take(self, parcel: Parcel) -> None:
        if isinstance(parcel, BatchParcel):
            self._batch(parcel)
        elif isinstance(parcel, DirectParcel):
            self._direct_message(parcel)
        elif isinstance(parcel, PoisonParcel):
            self._poison(parcel)
        elif isinstance(parcel, HelloParcel):
            self._hello(parcel)
        elif isinstance(parcel, RedriveParcel):
            self._redrive(parcel)
        elif isinstance(parcel, BrokerParcel):
            self._broker(parcel)
        else:
            self._status(parcel)

    # --- class A: batches with sequence numbers ---

    def _fresh(self, header: Header) -> CursorStep | None:
        """The step to book new records of this batch on; None if there is nothing new, or a gap before it."""
        key = _key(header)
        cursor = self._state.cursors.get(key, 0)
        why: AckCause = "commit"
        if header.seq0 > cursor + 1:
            why = "gap"
        elif header.last <= cursor:
            why = "duplicate"
        if why != "commit":
            self._ack(header, cursor, why)
            return None
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = CursorStep(*key, before=cursor, seq=cursor)
        step.seq = self._state.cursors[key] = header.last
        step.claimed = max(step.claimed, header.highest, header.last)
        self._heard.add(header.gateway)
        self._ack(header, header.last, "commit")
        return step

    def _ack(self, header: Header, seq: int, why: AckCause) -> None:
        key = _key(header)
        if why == "gap":
            self._gaps[key] = max(header.seq0, self._gaps.get(key, 0))
        elif self._gaps.get(key, 0) > seq + 1:
            why = "gap"  # one answer a commit: that something refused must be sent again is the more urgent part of it
        ack = Ack(header.epoch, header.stream, seq, self._credit, why)
        self._answers.acks[header.gateway, header.stream, header.epoch, ""] = ack

    def _batch(self, parcel: BatchParcel) -> None:
        cursor = self._state.cursors.get(_key(parcel.header), 0)
        step = self._fresh(parcel.header)
        if step is None:
            return
        parcel = parcel.after(cursor)
        self._book(parcel, step)
        batch, header = parcel.batch, parcel.header
        rival = self._state.epochs.moved(header.gateway, header.stream, header.epoch, parcel.origin.received_us)
        if rival is not None:
            detail = f"{header.stream}: epochs {rival} and {header.epoch} take turns"
            self._commit.events.append(SystemEvent("gateway_cloned", header.gateway, 1, detail))
        backlog, received_us = header.highest - header.last, parcel.origin.received_us
        if header.stream == TELEMETRY:
            newest = int(batch.time_us.max()) if len(batch) else None
            self._state.watermarks.batch(header.gateway, newest, backlog, received_us)
        else:
            self._state.watermarks.alarm_batch(header.gateway, backlog, received_us)
            self._canary(header.gateway, batch)

    def _canary(self, gateway: str, batch: Batch) -> None:
        """The gateway's own reading tells how long anything takes from its acceptance to the commit."""
        name = f"{gateway}/{CANARY}"
        if name in batch.names:
            times = batch.time_us[batch.index == batch.names.index(name)]
            if len(times):
                newest = self._commit.canaries.get(gateway, 0)
                self._commit.canaries[gateway] = max(newest, int(times.max()))

    def _book(self, parcel: BatchParcel, step: CursorStep) -> None:
        """Every record of a batch as what it is."""
        batch, header = parcel.batch, parcel.header
        if len(batch):
            series = self._registry.column(batch.names)[batch.index]
            self._columns.append((series, batch.time_us, batch.value, batch.quality))
        step.stored += len(batch)
        for seq, reject in batch.rejects:
            step.dead_lettered += 1
            self._commit.dead.append(dead_value(parcel.origin, reject, header, seq))
        for seq, note in parcel.notes:
            self._note(parcel, step, seq, note)

    def _note(self, parcel: BatchParcel, step: CursorStep, seq: int, note: object) -> None:
        header = parcel.header
        key = _key(header)
        if isinstance(note, LossNote):
            step.lost += note.span
            self._commit.losses.append(Loss(*key, note.first, note.last, storable(note.reason)))
        elif isinstance(note, RawNote):
            step.dead_lettered += 1
            reject = Reject("field-message", note.topic, note.reason)
            self._commit.dead.append(dead(parcel.origin, header, seq, 1, reject, note.payload, "field"))
        elif isinstance(note, ClockNote):
            step.noted += 1
            self._commit.notes.append(
                NoteRow(*key, seq, "clock", {"boot": storable(note.boot), "offset_us": note.offset_us})
            )
        elif isinstance(note, EventNote):
            step.noted += 1
            texts: dict[str, object] = {"code": storable(note.code), "text": storable(note.text)}
            body = {"device": note.device, "time_us": note.time_us} | texts
            self._commit.notes.append(NoteRow(*key, seq, "event", body))

    def _poison(self, parcel: PoisonParcel) -> None:
        reject = Reject(parcel.reason, parcel.where, parcel.detail)
        header = parcel.header
        if header is None or header.gateway != parcel.origin.topic.rpartition("/")[2]:
            self._commit.tally.dead_lettered += 1
            scope = scope_of(parcel.origin.topic)
            self._commit.dead.append(dead(parcel.origin, None, None, 1, reject, parcel.origin.payload, scope))
            return
        cursor = self._state.cursors.get(_key(header), 0)
        step = self._fresh(header)
        if step is not None:
            count = header.last - cursor
            step.dead_lettered += count
            payload = parcel.origin.payload
            self._commit.dead.append(dead(parcel.origin, header, cursor + 1, count, reject, payload, "batch"))

    # --- class B: messages without sequence numbers ---

    def _direct_message(self, parcel: DirectParcel) -> None:
        tally = self._commit.tally
        if parcel.origin.duplicate and parcel.digest in self._state.receipts:
            tally.duplicates += 1
            return
        self._state.receipts.add(parcel.digest)
        self._commit.digests.append(parcel.digest)
        self._state.watermarks.direct(parcel.device)
        tally.stored += len(parcel.readings)
        self._take_readings(parcel)
        if parcel.rejects:
            self._reject(parcel)

    def _take_readings(self, parcel: DirectParcel) -> None:
        ids = self._registry.ids
        for name, reading in zip(parcel.names, parcel.readings, strict=True):
            self._direct.append((ids[name], reading.time_us, reading.value, reading.quality))

    def _reject(self, parcel: DirectParcel) -> None:
        """Values of a message that are no readings, one letter each."""
        payload, whole = parcel.origin.payload, 0  # kept whole a few times, not with every one of thousands of rejects
        for reject in parcel.rejects:
            self._commit.tally.dead_lettered += 1
            small = whole < WHOLE_COPIES_MAX and len(payload) <= WHOLE_BYTES_MAX
            if reject.reading is None and parcel.is_whole and (small or whole == 0):
                letter = dead(parcel.origin, None, None, 1, reject, payload, "value")
                whole += 1
            else:
                letter = dead_value(parcel.origin, reject)
            self._commit.dead.append(letter)

    # --- dead letters that are tried again ---

    def _redrive(self, parcel: RedriveParcel) -> None:
        """Book the records of a letter once more, as what they are now. The store takes a letter that has no sequence numbers
        off the tally, because only there it is certain how often it had come."""
        failure, stored = parcel.failure, 0
        if parcel.batch is not None and parcel.seq is None:
            failure, stored = self._redrive_unnumbered(parcel.batch)
        elif parcel.batch is not None:
            step = self._standing(_key(parcel.batch.header))
            step.dead_lettered -= parcel.records
            self._book(parcel.batch, step)
            stored = len(parcel.batch.batch)
        elif parcel.direct is not None:
            stored = self._redrive_message(parcel, parcel.direct)
        said = f"{failure.reason} at {failure.where}: {failure.detail}" if failure else None
        self._commit.redriven.append(Redriven(parcel.letter, parcel.by, stored, storable(said) if said else None))

    def _redrive_unnumbered(self, parcel: BatchParcel) -> tuple[Reject | None, int]:
        """A batch whose numbers could not be read when it came: its cursor decides, as for any batch."""
        cursor = self._state.cursors.get(_key(parcel.header), 0)
        step = self._fresh(parcel.header)
        if step is not None:  # what it says of its gateway's backlog and epoch is history
            parcel = parcel.after(cursor)
            self._book(parcel, step)
            return None, len(parcel.batch)
        if parcel.header.seq0 > cursor + 1:
            return Reject("gap", "s0", f"the cursor stands at {cursor}; what is missing has to come first"), 0
        return None, 0

    def _redrive_message(self, parcel: RedriveParcel, direct: DirectParcel) -> int:
        """One record of a gateway may be a message of many values: the first is booked under its number, the rest beside it."""
        tally, count = self._commit.tally, len(direct.readings)
        if parcel.key is not None:
            step = self._standing(parcel.key)
            step.dead_lettered -= 1
            step.stored += 1
            count -= 1
        tally.stored += count
        self._take_readings(direct)
        self._reject(direct)
        return len(direct.readings)

    def _standing(self, key: CursorKey) -> CursorStep:
        """The step of a cursor whose records are booked differently; alone it does not move the cursor."""
        step = self._steps.get(key)
        if step is None:
            cursor = self._state.cursors[key]
            step = self._steps[key] = CursorStep(*key, before=cursor, seq=cursor)
        return step

    def _flush_direct(self) -> None:
        if self._direct:
            series, time_us, value, quality = zip(*self._direct, strict=True)
            self._columns.append(
                (
                    np.array(series, np.int32),
                    np.array(time_us, np.int64),
                    np.array(value),
                    np.array(quality, np.uint8),
                )
            )

    # --- control messages ---

    def _hello(self, parcel: HelloParcel) -> None:
        for held in parcel.hello.held:
            seq = self._state.cursors.get((parcel.gateway, held.st, held.ep), 0)
            ack = Ack(held.ep, held.st, seq, self._credit, "hello", parcel.hello.ref)
            self._answers.acks[parcel.gateway, held.st, held.ep, parcel.hello.ref] = ack

    def _broker(self, parcel: BrokerParcel) -> None:
        """The broker's counter starts anew with the broker. The first look of all is where counting begins."""
        before = self._state.broker_dropped
        if parcel.dropped == before:
            return
        self._state.broker_dropped = self._commit.broker_dropped = parcel.dropped
        if before is not None:
            grown = parcel.dropped - before if parcel.dropped > before else parcel.dropped
            if grown:
                detail = f"the broker's counter of dropped messages went from {before} to {parcel.dropped}"
                self._commit.events.append(SystemEvent("broker_dropped", "broker", grown, detail))

    def _status(self, parcel: StatusParcel) -> None:
        status = parcel.status
        # Encoded anew: what stands in unknown fields of a stranger's JSON need not be JSON to PostgreSQL.
        clean = msgspec.structs.replace(status, version=storable(status.version), clock=storable(status.clock))
        body = encode(clean).decode()
        received_us = parcel.origin.received_us
        self._commit.statuses.append(GatewayStatus(parcel.gateway, status.online, body, received_us))
        telemetry = [claim for claim in status.claims if claim.st == TELEMETRY]
        cursors = self._state.cursors
        if status.online and telemetry and all(
            cursors.get((parcel.gateway, claim.st, claim.ep), 0) >= claim.accepted for claim in telemetry
        ):  # fmt: skip
            self._state.watermarks.idle(parcel.gateway, received_us)
        self._commit.claims += [(parcel.gateway, claim.st, claim.ep, claim.accepted) for claim in status.claims]


def _joined(columns: list[Columns]) -> SeriesBatch:
    if not columns:
        return SeriesBatch.empty()
    series, time_us, value, quality = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return SeriesBatch.group(series, time_us, value, quality)


def _for_storage(batch: SeriesBatch) -> SeriesBatch:
    """Sorted by series and time. Grouped rows already are, unless some came late."""
    same = batch.series[1:] == batch.series[:-1]
    if not np.any(same & (batch.time_us[1:] < batch.time_us[:-1])):
        return batch
    order = np.lexsort((batch.time_us, batch.series))
    return SeriesBatch(batch.series[order], batch.time_us[order], batch.value[order], batch.quality[order])
