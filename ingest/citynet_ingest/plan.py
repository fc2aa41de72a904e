"""From parcels to a commit: which records are new, which were stored before, which must be sent again.

Pure apart from the state it is given (cursors, receipts, watermarks, rules engine), which it moves on. If the commit turns
out to be impossible that state is thrown away and rebuilt from the database: one place to reason about a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from citynet.batch import F64, I32, I64, U8, Batch, SeriesBatch
from citynet.control import KEY_REUSED, Ack, AckCause, Outcome, encode
from citynet.formats import Reject, Uplink
from citynet.notes import ClockNote, EventNote, LossNote, RawNote
from citynet.wire import TELEMETRY, Header
from citynet_ingest.commit import (
    Answers,
    Commit,
    CursorStep,
    GatewayStatus,
    Loss,
    NoteRow,
    Redriven,
    Reply,
    SystemEvent,
    UplinkSpan,
)
from citynet_ingest.deadletter import dead, dead_value, scope_of, storable
from citynet_ingest.letter import WHOLE_BYTES_MAX, WHOLE_COPIES_MAX
from citynet_ingest.parcel import (
    BatchParcel,
    BrokerParcel,
    DirectParcel,
    HelloParcel,
    Key,
    Origin,
    Parcel,
    PoisonParcel,
    RedriveParcel,
    StatusParcel,
)
from citynet_ingest.registry import Registry
from citynet_ingest.state import CursorKey, State, cursor_of

CANARY = "gateway_uptime_s"  # a gateway's reading of its own, in the alarm stream

_REUSED = Reject(KEY_REUSED, "idempotency-key", "another body came with this key before")
Columns = tuple[I32, I64, F64, U8]


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
            if origin.packet_id:
                self._answers.pubacks.setdefault((origin.lane, origin.generation), []).append(origin.packet_id)
        self._flush_direct()
        commit = self._commit
        commit.steps = list(self._steps.values())
        commit.heard = sorted(self._heard)
        commit.trims = [lane for lane in commit.digests if self._state.receipts[lane].is_trim_due()]
        grouped = _joined(self._columns)
        fed = self._state.engine.feed(grouped)
        commit.rows = _for_storage(SeriesBatch(grouped.series, grouped.time_us, grouped.value, fed.quality))
        commit.bounded = self._state.engine.bounded()
        commit.partials = self._state.rollup.feed(commit.rows, commit.bounded)
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
        elif isinstance(parcel, StatusParcel):
            self._status(parcel)

    # --- class A: batches with sequence numbers ---

    def _fresh(self, header: Header) -> CursorStep | None:
        """The step to book new records of this batch on; None if there is nothing new, or a gap before it."""
        key = cursor_of(header)
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
        key = cursor_of(header)
        if why == "gap":
            self._gaps[key] = max(header.seq0, self._gaps.get(key, 0))
        elif self._gaps.get(key, 0) > seq + 1:
            why = "gap"  # one answer a commit: that something refused must be sent again is the more urgent part of it
        ack = Ack(header.epoch, header.stream, seq, self._credit, why)
        self._answers.acks[header.gateway, header.stream, header.epoch, ""] = ack

    def _batch(self, parcel: BatchParcel) -> None:
        cursor = self._state.cursors.get(cursor_of(parcel.header), 0)
        step = self._fresh(parcel.header)
        if step is None:
            self._reply_batch(parcel.origin, parcel.header, cursor, Outcome(duplicate=parcel.header.last <= cursor))
            return
        parcel = parcel.after(cursor)
        self._book(parcel, step)
        batch, header = parcel.batch, parcel.header
        self._reply_batch(parcel.origin, header, cursor, _outcome(len(batch), [reject for _, reject in batch.rejects]))
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

    def _reply_batch(self, origin: Origin, header: Header, before: int, outcome: Outcome) -> None:
        """Reply, if one is wanted, with the batch's own acknowledgement; `before` is where its cursor stood."""
        if not origin.reply_topic:
            return
        why: AckCause = "gap" if header.seq0 > before + 1 else "duplicate" if header.last <= before else "commit"
        seq = self._state.cursors.get(cursor_of(header), 0)
        ack = Ack(header.epoch, header.stream, seq, self._credit, why)
        self._reply(origin, msgspec.structs.replace(outcome, ack=ack))

    def _reply(self, origin: Origin, outcome: Outcome) -> None:
        if origin.reply_topic:
            self._answers.replies.append(Reply(origin.lane, origin.reply_topic, origin.correlation, outcome))

    def _note(self, parcel: BatchParcel, step: CursorStep, seq: int, note: object) -> None:
        header = parcel.header
        key = cursor_of(header)
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
            letter = dead(parcel.origin, None, None, 1, reject, parcel.origin.payload, scope, parcel.key)
            self._commit.dead.append(letter)
            self._reply(parcel.origin, _outcome(0, [reject]))
            return
        cursor = self._state.cursors.get(cursor_of(header), 0)
        step = self._fresh(header)
        if step is None:
            self._reply_batch(parcel.origin, header, cursor, Outcome(duplicate=header.last <= cursor))
            return
        count = header.last - cursor
        step.dead_lettered += count
        payload = parcel.origin.payload
        self._commit.dead.append(dead(parcel.origin, header, cursor + 1, count, reject, payload, "batch"))
        outcome = msgspec.structs.replace(_outcome(0, [reject]), dead_lettered=count)
        self._reply_batch(parcel.origin, header, cursor, outcome)

    # --- class B: messages without sequence numbers ---

    def _direct_message(self, parcel: DirectParcel) -> None:
        tally = self._commit.tally
        if not self._is_new(parcel):
            return
        self._state.watermarks.direct(parcel.device)
        tally.stored += len(parcel.readings)
        self._take_readings(parcel)
        self._reject(parcel)
        if parcel.uplink is not None:
            self._uplink(parcel.uplink)
        if parcel.origin.reply_topic:
            self._reply(parcel.origin, _outcome(len(parcel.readings), parcel.rejects))

    def _is_new(self, parcel: DirectParcel) -> bool:
        """Whether the message was not stored before; remembers it. A key decides alone, whoever sent the message again."""
        key, origin = parcel.key, parcel.origin
        if key is None:
            receipts = self._state.receipts[origin.lane]
            if origin.duplicate and parcel.digest in receipts:
                self._commit.tally.duplicates += 1
                self._reply(origin, Outcome(duplicate=True))
                return False
            receipts.add(parcel.digest)
            self._commit.digests.setdefault(origin.lane, []).append(parcel.digest)
            return True
        found = self._recognise(key)
        if found == "known":
            self._commit.tally.duplicates += 1
            self._reply(origin, Outcome(duplicate=True))
        elif found == "reused":
            self._commit.tally.dead_lettered += 1
            self._commit.dead.append(dead(origin, None, None, 1, _REUSED, origin.payload, "message", key))
            self._reply(origin, _outcome(0, [_REUSED]))
        return found == "new"

    def _recognise(self, key: Key) -> Literal["new", "known", "reused"]:
        """What a message with this key is; a new one is remembered."""
        body = self._state.keys.get(key.digest)
        if body is None:
            self._state.keys[key.digest] = key.body
            self._commit.keys.append(key)
            return "new"
        return "known" if body == key.body else "reused"

    def _uplink(self, uplink: Uplink) -> None:
        span = self._commit.uplinks.get(uplink.device)
        if span is None:
            self._commit.uplinks[uplink.device] = UplinkSpan(uplink.device, uplink.counter, uplink.counter)
        else:
            span.add(uplink.counter)

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
            step = self._standing(cursor_of(parcel.batch.header))
            step.dead_lettered -= parcel.records
            self._book(parcel.batch, step)
            stored = len(parcel.batch.batch)
        elif parcel.direct is not None:
            failure, stored = self._redrive_message(parcel, parcel.direct)
        said = f"{failure.reason} at {failure.where}: {failure.detail}" if failure else None
        self._commit.redriven.append(Redriven(parcel.letter, parcel.by, stored, storable(said) if said else None))

    def _redrive_unnumbered(self, parcel: BatchParcel) -> tuple[Reject | None, int]:
        """A batch whose numbers could not be read when it came: its cursor decides, as for any batch."""
        cursor = self._state.cursors.get(cursor_of(parcel.header), 0)
        step = self._fresh(parcel.header)
        if step is not None:  # what it says of its gateway's backlog and epoch is history
            parcel = parcel.after(cursor)
            self._book(parcel, step)
            return None, len(parcel.batch)
        if parcel.header.seq0 > cursor + 1:
            return Reject("gap", "s0", f"the cursor stands at {cursor}; what is missing has to come first"), 0
        return None, 0

    def _redrive_message(self, parcel: RedriveParcel, direct: DirectParcel) -> tuple[Reject | None, int]:
        """A message with a key may have come again, and have been stored, since. Its uplink counter is history.

        One record of a gateway may be a message of many values: the first is booked under its number, the rest beside it.
        """
        tally, count = self._commit.tally, len(direct.readings)
        found = "new" if direct.key is None else self._recognise(direct.key)
        if found == "reused":
            return _REUSED, 0
        if found == "known":
            tally.duplicates += 1
            return None, 0
        if parcel.cursor is not None:
            step = self._standing(parcel.cursor)
            step.dead_lettered -= 1
            step.stored += 1
            count -= 1
        tally.stored += count
        self._take_readings(direct)
        self._reject(direct)
        return None, len(direct.readings)

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


def _outcome(stored: int, rejects: Sequence[Reject]) -> Outcome:
    first = rejects[0] if rejects else Reject("", "", "")
    where = first.where.encode("utf-8", "backslashreplace").decode()  # JSON has no lone surrogates
    return Outcome(stored, len(rejects), reason=first.reason, where=where)


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
