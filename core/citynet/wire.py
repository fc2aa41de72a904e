"""The batch envelope between gateway and server: CBOR with typed arrays, or the same map as JSON.

Decoding never trusts: any bytes either give an `Envelope` or raise one `DecodeError` that says what and where. When the
header was readable the error is an `EnvelopeError` that carries it, so that the whole batch can be dead-lettered under
its own sequence numbers and acknowledged instead of coming back for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import cbor2
import msgspec

from citynet.columns import (
    FLOATS,
    INTEGERS,
    UNSIGNED,
    Column,
    from_wire,
    pack_index,
    pack_offsets,
    pack_values,
)
from citynet.control import Stream
from citynet.errors import DecodeError
from citynet.ids import check_id, is_id
from citynet.notes import ClockNote, EventNote, LossNote, Note, RawNote
from citynet.reading import Reading
from citynet.skim import NamesMemory

CBOR = "application/vnd.citynet.batch+cbor"
JSON = "application/vnd.citynet.batch+json"
VERSION = 1
TELEMETRY: Stream = "telemetry"
ALARM: Stream = "alarm"
STREAMS: tuple[Stream, ...] = (TELEMETRY, ALARM)
READINGS_MAX = 65_535
NOTES_MAX = 4_096
BYTES_MAX = 1 << 20
SEQ_MAX = (1 << 63) - 1  # sequence numbers and epochs are positive 63-bit integers: they fit a PostgreSQL bigint
_DEPTH_MAX = 8
_NAMES_KNOWN_MAX = 250_000  # about 30 MB
_known_names: set[str] = set()


@dataclass(frozen=True, slots=True)
class Header:
    """Who sends what: the part of an envelope that identifies its records.

    The batch covers sequence numbers `seq0` .. `last`; `highest` is the highest number the gateway had accepted in this
    stream and epoch when it sent (0 when it did not say), so the difference to `last` is its backlog.
    """

    gateway: str
    stream: Stream
    epoch: int
    seq0: int
    count: int
    highest: int = 0

    @property
    def last(self) -> int:
        return self.seq0 + self.count - 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded batch. Columns have one entry per reading; `notes` are (position, note), position counted from `seq0`."""

    header: Header
    names: tuple[str, ...]
    t0_us: int
    index: Column
    dt_us: Column
    value: Column
    quality: Column | None
    notes: tuple[tuple[int, Note], ...]

    def __len__(self) -> int:
        """Number of readings."""
        return len(self.index)

    def readings(self) -> list[Reading]:
        """The readings as objects, in acceptance order; for tests and tools, not for hot paths. IndexError on a bad index."""
        quality = self.quality.native() if self.quality else [0] * len(self)
        rows = zip(self.index.native(), self.dt_us.native(), self.value.native(), quality, strict=True)
        found = []
        for i, dt, x, q in rows:
            device, _, metric = self.names[int(i)].partition("/")
            found.append(Reading(device, metric, self.t0_us + int(dt), float(x), int(q)))
        return found


class EnvelopeError(DecodeError):
    """The body of a batch is broken although its header could be read."""

    def __init__(self, header: Header, cause: DecodeError) -> None:
        self.header = header
        super().__init__(cause.reason, cause.where, cause.detail)


def encode(
    header: Header,
    readings: Sequence[Reading],
    notes: Sequence[tuple[int, Note]] = (),
    *,
    content_type: str = CBOR,
) -> bytes:
    """Encode a batch; `header.count` must be the readings plus the sequence numbers the notes stand for."""
    spans = sum(note.span for _, note in notes)
    if header.count != len(readings) + spans:
        raise ValueError(f"count {header.count} is not {len(readings)} readings + {spans} of notes")
    names: dict[str, int] = {}
    index = [names.setdefault(r.name, len(names)) for r in readings]
    t0 = readings[0].time_us if readings else 0
    body: dict[str, object] = {
        "v": VERSION, "gw": header.gateway, "st": header.stream, "ep": header.epoch, "s0": header.seq0,
        "n": header.count, "hi": header.highest, "names": list(names), "t0": t0,
    }  # fmt: skip
    offsets = [r.time_us - t0 for r in readings]
    values = [r.value for r in readings]
    quality = [r.quality for r in readings]
    if content_type == JSON:
        body |= {"i": index, "dt": offsets, "x": [x if isfinite(x) else None for x in values]}  # JSON has no NaN
        if any(quality):
            body["q"] = quality
    else:
        body |= {
            "i": pack_index(index, len(names)).to_tag(),
            "dt": pack_offsets(offsets).to_tag(),
            "x": pack_values(values).to_tag(),
        }
        if any(quality):
            body["q"] = cbor2.CBORTag(64, bytes(quality))
    if notes:
        body["notes"] = [_note_out(position, note, content_type) for position, note in notes]
    return msgspec.json.encode(body) if content_type == JSON else cbor2.dumps(body)


def decode(payload: bytes, content_type: str = CBOR, memory: NamesMemory | None = None) -> Envelope:
    """Decode a batch envelope. With a `memory`, lists of names that came before are not decoded again.

    Raises:
        DecodeError: the bytes are no envelope at all (`EnvelopeError` where the header could be read and is credible).
    """
    if memory is not None and content_type == CBOR and len(payload) <= BYTES_MAX:
        cut = memory.cut(payload)
        if cut is not None:
            return _decode(cut[0], content_type, cut[1])
        envelope = _decode(payload, content_type)
        memory.learn(payload, envelope.names)
        return envelope
    return _decode(payload, content_type)


def _decode(payload: bytes, content_type: str, names: tuple[str, ...] | None = None) -> Envelope:
    """Decode; `names`: the checked names, if they were cut out of the payload."""
    body = _load(payload, content_type)
    header = _header(body)
    try:
        return _body(header, body, _names(body.get("names", [])) if names is None else names)
    except DecodeError as error:
        if not _is_credible(header):
            raise
        raise EnvelopeError(header, error) from None


def _is_credible(header: Header) -> bool:
    """Whether a broken batch may be booked by its header. One that claims more than fits a message, or more than the gateway
    has accepted, is part of what is broken: booking it would make good records of later batches look like duplicates."""
    return header.count <= READINGS_MAX + NOTES_MAX and (not header.highest or header.last <= header.highest)


def _load(payload: bytes, content_type: str) -> dict[str, object]:
    if len(payload) > BYTES_MAX:
        raise DecodeError("too-large", "payload", f"{len(payload)} bytes, at most {BYTES_MAX}")
    if content_type not in (CBOR, JSON):
        raise DecodeError("unknown-content-type", "content-type", repr(content_type[:80]))
    try:
        body: object
        if content_type == CBOR:
            body = cbor2.loads(payload, max_depth=_DEPTH_MAX, allow_duplicate_keys=False, strict_hashable_types=True)
        else:
            body = msgspec.json.decode(payload)
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError) as error:
        kind = "bad-cbor" if content_type == CBOR else "bad-json"
        raise DecodeError(kind, "payload", str(error)[:200]) from None
    if not isinstance(body, dict):
        raise DecodeError("not-a-map", "payload", type(body).__name__)
    return body


def _integer(body: dict[str, object], key: str, low: int, high: int) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DecodeError("missing-or-not-integer", key, repr(value)[:80])
    if not low <= value <= high:
        raise DecodeError("out-of-range", key, f"{str(value)[:40]} is not in {low}..{high}")
    return value


def _stream(value: object) -> Stream:
    if value == "telemetry":
        return "telemetry"
    if value == "alarm":
        return "alarm"
    raise DecodeError("unknown-stream", "st", repr(value)[:80])


def _header(body: dict[str, object]) -> Header:
    _integer(body, "v", VERSION, VERSION)
    stream = _stream(body.get("st"))
    header = Header(
        gateway=check_id(body.get("gw"), "gw"),
        stream=stream,
        epoch=_integer(body, "ep", 1, SEQ_MAX),
        seq0=_integer(body, "s0", 1, SEQ_MAX),
        count=_integer(body, "n", 1, SEQ_MAX),
        highest=_integer(body, "hi", 0, SEQ_MAX) if "hi" in body else 0,
    )
    if header.last > SEQ_MAX:
        raise DecodeError("out-of-range", "n", "s0 + n passes the highest sequence number")
    return header


def _body(header: Header, body: dict[str, object], names: tuple[str, ...]) -> Envelope:
    index = from_wire(body.get("i", []), "i", UNSIGNED, "u4")
    dt = from_wire(body.get("dt", []), "dt", INTEGERS, "i8")
    value = from_wire(body.get("x", []), "x", FLOATS, "f8")
    quality = from_wire(body["q"], "q", frozenset({"u1"}), "u1") if body.get("q") is not None else None
    for where, column in (("dt", dt), ("x", value), ("q", quality)):
        if column is not None and len(column) != len(index):
            raise DecodeError("length-mismatch", where, f"{len(column)} entries, i has {len(index)}")
    if len(index) > READINGS_MAX:
        raise DecodeError("too-many-readings", "i", f"{len(index)}, at most {READINGS_MAX}")
    notes = _notes(body.get("notes", []), header)
    covered = len(index) + sum(note.span for _, note in notes)
    if covered != header.count:
        raise DecodeError("count-mismatch", "n", f"{header.count} announced, readings and notes cover {covered}")
    t0 = _integer(body, "t0", -SEQ_MAX, SEQ_MAX) if len(index) else 0
    return Envelope(header, names, t0, index, dt, value, quality, notes)


def _names(names: object) -> tuple[str, ...]:
    """The names, checked. Each is looked at once: what was valid before is so again."""
    if not isinstance(names, list):
        raise DecodeError("not-a-list", "names", type(names).__name__)
    try:
        distinct = set(names)
        is_known = _known_names.issuperset(distinct)
    except TypeError:  # a list or map among them cannot be hashed
        distinct, is_known = set(), False
    if not is_known:
        _check_names(names)
        if len(_known_names) + len(distinct) > _NAMES_KNOWN_MAX:
            _known_names.clear()
        _known_names.update(distinct)
    if len(distinct) != len(names):
        raise DecodeError("repeated-name", "names", "each name may stand once")
    return tuple(names)


def _check_names(names: list[object]) -> None:
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise DecodeError("bad-name", f"names[{position}]", repr(name)[:80])
        device, slash, metric = name.partition("/")
        if not (slash and is_id(device) and is_id(metric)):
            raise DecodeError("bad-name", f"names[{position}]", f"{name[:140]!r} is not device/metric")


def _notes(notes: object, header: Header) -> tuple[tuple[int, Note], ...]:
    if not isinstance(notes, list):
        raise DecodeError("not-a-list", "notes", type(notes).__name__)
    if len(notes) > NOTES_MAX:
        raise DecodeError("too-many-notes", "notes", f"{len(notes)}, at most {NOTES_MAX}")
    found = [_note_in(item, f"notes[{position}]", header) for position, item in enumerate(notes)]
    for number, ((before, note), (after, _)) in enumerate(pairwise(found)):
        if after < before + note.span:
            raise DecodeError("overlapping-notes", f"notes[{number + 1}].k", f"{after} lies within the note before it")
    if found and found[-1][0] + found[-1][1].span > header.count:
        raise DecodeError("out-of-range", "notes", "the last note passes the end of the batch")
    return tuple(found)


def _note_out(position: int, note: Note, content_type: str) -> dict[str, object]:
    if isinstance(note, LossNote):
        return {
            "k": position,
            "kind": "loss",
            "from": note.first,
            "to": note.last,
            "reason": note.reason,
            "count": note.span,
        }
    if isinstance(note, ClockNote):
        return {"k": position, "kind": "clock", "boot": note.boot, "offset_us": note.offset_us}
    if isinstance(note, EventNote):
        return {
            "k": position,
            "kind": "event",
            "device": note.device,
            "code": note.code,
            "text": note.text,
            "t": note.time_us,
        }
    body = note.payload.hex() if content_type == JSON else note.payload
    return {"k": position, "kind": "raw", "topic": note.topic, "bytes": body, "reason": note.reason}


def _note_in(item: object, where: str, header: Header) -> tuple[int, Note]:
    if not isinstance(item, dict):
        raise DecodeError("not-a-map", where, type(item).__name__)
    try:
        position = _integer(item, "k", 0, header.count - 1)
        kind = item.get("kind")
        if kind == "loss":
            return position, _loss_in(item, position, header)
        if kind == "clock":
            return position, ClockNote(_text(item, "boot", 64), _integer(item, "offset_us", -SEQ_MAX, SEQ_MAX))
        if kind == "event":
            device = check_id(item.get("device"), "device")
            moment = _integer(item, "t", -SEQ_MAX, SEQ_MAX)
            return position, EventNote(device, _text(item, "code", 64), _text(item, "text", 1024), moment)
        if kind == "raw":
            return position, RawNote(_text(item, "topic", 512), _bytes(item, "bytes"), _text(item, "reason", 512))
    except DecodeError as error:
        raise DecodeError(error.reason, f"{where}.{error.where}", error.detail) from None
    raise DecodeError("unknown-note", f"{where}.kind", repr(kind)[:80])


def _loss_in(item: dict[str, object], position: int, header: Header) -> LossNote:
    first = _integer(item, "from", 1, SEQ_MAX)
    note = LossNote(first, _integer(item, "to", first, SEQ_MAX), _text(item, "reason", 200))
    if first != header.seq0 + position:
        raise DecodeError("out-of-place", "from", f"a loss from {first} cannot stand at {header.seq0 + position}")
    return note


def _text(item: dict[str, object], key: str, chars_max: int) -> str:
    value = item.get(key)
    if not isinstance(value, str) or len(value) > chars_max:
        raise DecodeError("bad-text", key, f"text of at most {chars_max} characters expected")
    return value


def _bytes(item: dict[str, object], key: str) -> bytes:
    value = item.get(key)
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise DecodeError("bad-bytes", key, "bytes (CBOR) or hexadecimal text (JSON) expected")
