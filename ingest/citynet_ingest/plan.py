"""From parcels to a commit: which records are new, which were stored before, which must be sent again.

Pure apart from the state it is given (cursors, receipts, watermarks, rules engine), which it moves on. If the commit turns
out to be impossible that state is thrown away and rebuilt from the database: one place to reason about a crash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec
import numpy as np

from citynet.batch import F64, I32, I64, U8, SeriesBatch
from citynet.control import KEY_REUSED, Ack, AckCause, Outcome, encode
from citynet.formats import Reject, Uplink
from citynet.notes import ClockNote, EventNote, LossNote, RawNote
from citynet.wire import TELEMETRY, Header
from citynet_ingest.commit import (
    Answers,
    Commit,
    CursorStep,
    DeadLetter,
    GatewayStatus,
    Loss,
    NoteRow,
    Reply,
    UplinkSpan,
)
from citynet_ingest.intake import DIGEST_BYTES
from citynet_ingest.parcel import (
    BatchParcel,
    DirectParcel,
    HelloParcel,
    Origin,
    Parcel,
    PoisonParcel,
    StatusParcel,
)
from citynet_ingest.registry import Registry
from citynet_ingest.rollup.buckets import Rollup
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine

CursorKey = tuple[str, str, int]
Columns = tuple[I32, I64, F64, U8]


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
    keys: dict[bytes, bytes] = field(
        default_factory=dict
    )  # known keys of the messages being planned, with their bodies


def cursor_keys(parcels: Iterable[Parcel]) -> set[CursorKey]:
    """The cursors that planning these parcels needs."""
    keys: set[CursorKey] = set()
    for parcel in parcels:
        if isinstance(parcel, BatchParcel | PoisonParcel) and parcel.header is not None:
            keys.add(_key(parcel.header))
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


def message_keys(parcels: Iterable[Parcel]) -> list[bytes]:
    """Digests of the keys that these parcels carry."""
    return [parcel.key.digest for parcel in parcels if isinstance(parcel, DirectParcel) and parcel.key is not None]


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
        commit.partials = self._state.rollup.feed(commit.rows)
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
        elif isinstance(parcel, StatusParcel):
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
            self._reply_batch(parcel.origin, parcel.header, cursor, Outcome(duplicate=parcel.header.last <= cursor))
            return
        parcel = parcel.after(cursor)
        batch, header = parcel.batch, parcel.header
        if len(batch):
            series = self._registry.column(batch.names)[batch.index]
            self._columns.append((series, batch.time_us, batch.value, batch.quality))
        step.stored += len(batch)
        for seq, reject in batch.rejects:
            step.dead_lettered += 1
            self._commit.dead.append(_dead(parcel.origin, header, seq, 1, reject, reject.detail.encode()))
        for seq, note in parcel.notes:
            self._note(parcel, step, seq, note)
        self._reply_batch(parcel.origin, header, cursor, _outcome(len(batch), [reject for _, reject in batch.rejects]))
        backlog, received_us = header.highest - header.last, parcel.origin.received_us
        if header.stream == TELEMETRY:
            newest = int(batch.time_us.max()) if len(batch) else None
            self._state.watermarks.batch(header.gateway, newest, backlog, received_us)
        else:
            self._state.watermarks.alarm_batch(header.gateway, backlog, received_us)

    def _reply_batch(self, origin: Origin, header: Header, before: int, outcome: Outcome) -> None:
        """Reply, if one is wanted, with the batch's own acknowledgement; `before` is where its cursor stood."""
        if not origin.reply_topic:
            return
        why: AckCause = "gap" if header.seq0 > before + 1 else "duplicate" if header.last <= before else "commit"
        seq = self._state.cursors.get(_key(header), 0)
        ack = Ack(header.epoch, header.stream, seq, self._credit, why)
        self._reply(origin, msgspec.structs.replace(outcome, ack=ack))

    def _reply(self, origin: Origin, outcome: Outcome) -> None:
        if origin.reply_topic:
            self._answers.replies.append(Reply(origin.lane, origin.reply_topic, origin.correlation, outcome))

    def _note(self, parcel: BatchParcel, step: CursorStep, seq: int, note: object) -> None:
        header = parcel.header
        key = _key(header)
        if isinstance(note, LossNote):
            step.lost += note.span
            self._commit.losses.append(Loss(*key, note.first, note.last, _storable(note.reason)))
        elif isinstance(note, RawNote):
            step.dead_lettered += 1
            reject = Reject("field-message", note.topic, note.reason)
            self._commit.dead.append(_dead(parcel.origin, header, seq, 1, reject, note.payload))
        elif isinstance(note, ClockNote):
            step.noted += 1
            self._commit.notes.append(
                NoteRow(*key, seq, "clock", {"boot": _storable(note.boot), "offset_us": note.offset_us})
            )
        elif isinstance(note, EventNote):
            step.noted += 1
            texts: dict[str, object] = {"code": _storable(note.code), "text": _storable(note.text)}
            body = {"device": note.device, "time_us": note.time_us} | texts
            self._commit.notes.append(NoteRow(*key, seq, "event", body))

    def _poison(self, parcel: PoisonParcel) -> None:
        reject = Reject(parcel.reason, parcel.where, parcel.detail)
        header = parcel.header
        if header is None or header.gateway != parcel.origin.topic.rpartition("/")[2]:
            self._commit.tally.dead_lettered += 1
            self._commit.dead.append(_dead(parcel.origin, None, None, 1, reject, parcel.origin.payload))
            self._reply(parcel.origin, _outcome(0, [reject]))
            return
        cursor = self._state.cursors.get(_key(header), 0)
        step = self._fresh(header)
        if step is None:
            self._reply_batch(parcel.origin, header, cursor, Outcome(duplicate=header.last <= cursor))
            return
        count = header.last - cursor
        step.dead_lettered += count
        self._commit.dead.append(_dead(parcel.origin, header, cursor + 1, count, reject, parcel.origin.payload))
        outcome = msgspec.structs.replace(_outcome(0, [reject]), dead_lettered=count)
        self._reply_batch(parcel.origin, header, cursor, outcome)

    # --- class B: messages without sequence numbers ---

    def _direct_message(self, parcel: DirectParcel) -> None:
        tally = self._commit.tally
        if not self._is_new(parcel):
            return
        self._state.watermarks.direct(parcel.device)
        ids = self._registry.ids
        for name, reading in zip(parcel.names, parcel.readings, strict=True):
            self._direct.append((ids[name], reading.time_us, reading.value, reading.quality))
        tally.stored += len(parcel.readings)
        payload = parcel.origin.payload  # kept whole once, not with every one of thousands of rejects
        for reject in parcel.rejects:
            tally.dead_lettered += 1
            self._commit.dead.append(_dead(parcel.origin, None, None, 1, reject, payload))
            payload = reject.detail.encode("utf-8", "replace")
        if parcel.uplink is not None:
            self._uplink(parcel.uplink)
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
        body = self._state.keys.get(key.digest)
        if body is None:
            self._state.keys[key.digest] = key.body
            self._commit.keys.append(key)
            return True
        if body == key.body:
            self._commit.tally.duplicates += 1
            self._reply(origin, Outcome(duplicate=True))
            return False
        reject = Reject(KEY_REUSED, "idempotency-key", "another body came with this key before")
        self._commit.tally.dead_lettered += 1
        self._commit.dead.append(_dead(origin, None, None, 1, reject, origin.payload))
        self._reply(origin, _outcome(0, [reject]))
        return False

    def _uplink(self, uplink: Uplink) -> None:
        span = self._commit.uplinks.get(uplink.device)
        if span is None:
            self._commit.uplinks[uplink.device] = UplinkSpan(uplink.device, uplink.counter, uplink.counter)
        else:
            span.add(uplink.counter)

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

    def _status(self, parcel: StatusParcel) -> None:
        status = parcel.status
        # Encoded anew: what stands in unknown fields of a stranger's JSON need not be JSON to PostgreSQL.
        clean = msgspec.structs.replace(status, version=_storable(status.version), clock=_storable(status.clock))
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


def _dead(
    origin: Origin, header: Header | None, seq: int | None, records: int, reject: Reject, payload: bytes
) -> DeadLetter:
    digest = blake2b(payload + b"\0" + reject.where.encode("utf-8", "replace"), digest_size=DIGEST_BYTES).digest()
    return DeadLetter(
        topic=_storable(origin.topic),
        source=header.gateway if header else None,
        stream=header.stream if header else None,
        epoch=header.epoch if header else None,
        seq=seq,
        records=records,
        reason=reject.reason,
        place=_storable(reject.where),
        detail=_storable(reject.detail),
        content_type=_storable(origin.content_type),
        payload=payload,
        digest=digest,
    )


def _storable(text: str) -> str:
    """PostgreSQL's text holds neither NUL nor lone surrogates; what a stranger sent may."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
