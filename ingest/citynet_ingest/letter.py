"""Dead letters: what one keeps, and how it is understood again once what was wrong has been put right. Pure.

A letter's scope says what its payload is, and so what a redrive may take out of it without storing anything twice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from citynet import formats, topics, wire
from citynet.batch import FUTURE_US_MAX, PAST_US_MAX, Batch
from citynet.errors import DecodeError
from citynet.formats import Decoded, Reject
from citynet.ids import check_id, shard_of_text
from citynet.quality import BAD
from citynet.reading import Reading
from citynet_ingest.intake import check_speaker, key_of_uplink
from citynet_ingest.parcel import BatchParcel, DirectParcel, Key, Origin, RedriveParcel
from citynet_ingest.sources import Sources, unconfigured
from citynet_ingest.sources import content_type as content_type_by

Scope = Literal["batch", "message", "value", "reading", "field", "none"]
READING_TYPE = "application/vnd.citynet.reading+json"
TEXT_TYPE = "text/plain"
WHOLE_BYTES_MAX = 4_096  # a message up to this size is kept with every one of …
WHOLE_COPIES_MAX = 16  # … so many of its values; a larger one with the first only
# Reasons of the format decoders for which nothing of a field message was taken. Any other is about one value of it.
_WHOLE_REASONS = frozenset(
    {
        "too-large", "unknown-content-type", "too-many-readings", "bad-json", "bad-cbor", "wrong-shape", "bad-time", "empty",
        "bad-version", "unknown-label", "wrong-type",
    }
)  # fmt: skip
_NOTE = re.compile(r"(?P<reason>[a-z-]+) at (?P<where>[^\s:]+)(?:: |$)")
_CUT = re.compile(r"\(first \d+ of \d+ bytes\)$")


class _Kept(msgspec.Struct, frozen=True):
    """A reading as a letter's payload; `x` is null for NaN and infinity."""

    n: str
    t: int
    x: float | None
    q: int = 0


def encode_reading(reading: Reading) -> bytes:
    """A reading as JSON: name, µs since 1970, value, quality."""
    value = reading.value if math.isfinite(reading.value) else None
    return msgspec.json.encode(_Kept(reading.name, reading.time_us, value, reading.quality))


def decode_reading(payload: bytes) -> Reading:
    """The reading of a letter of scope ``reading``. DecodeError if it is none."""
    try:
        kept = msgspec.json.decode(payload, type=_Kept)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("bad-json", "payload", str(error)[:200]) from None
    device, _, metric = kept.n.partition("/")
    check_id(device, "n")
    check_id(metric, "n")
    if kept.x is None:
        return Reading(device, metric, kept.t, math.nan, kept.q | BAD)
    return Reading(device, metric, kept.t, kept.x, kept.q)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter that somebody asked to have tried again, of the worker that has `shard`.

    `seq` None: its records have no sequence numbers. `key` is that of a whole message which its sender named.
    """

    id: int
    topic: str
    source: str | None
    stream: str | None
    epoch: int | None
    seq: int | None
    records: int
    place: str
    detail: str
    content_type: str
    payload: bytes
    scope: str | None
    received_us: int
    by: str
    content_type_now: str | None  # what the operator says it is
    shard: int
    key: bytes | None = None
    key_body: bytes | None = None

    @property
    def origin(self) -> Origin:
        content_type = self.content_type_now or self.content_type
        return Origin(self.topic, 0, 0, False, self.received_us, content_type, self.payload)


def reopen(letter: Letter, default_content_type: str, sources: Sources, now_us: int) -> RedriveParcel:
    """Understand a letter anew.

    Times are judged by `now_us`; a message without a time of its own is of the moment at which ingest received it. What is
    still wrong stands in the parcel as its failure.
    """
    try:
        _check_shard(letter, sources)
        if letter.scope == "batch":
            return _parcel(letter, batch=_batch(letter, now_us))
        if letter.scope == "field":
            source, found = letter.source or "", _field(letter, default_content_type)
            return _parcel(letter, direct=_direct(letter, source, found, now_us))
        if letter.scope in ("message", "value", "reading"):
            sender = _sender(letter, default_content_type, sources)
            found = (
                _message(letter, sender) if letter.scope != "reading" else Decoded([decode_reading(letter.payload)], [])
            )
            return _parcel(letter, direct=_direct(letter, sender.source, found, now_us))
        raise DecodeError("not-kept", "payload", "the letter does not hold what would be needed to try it again")
    except DecodeError as error:
        return _parcel(letter, failure=Reject(error.reason, error.where, error.detail))


def _parcel(
    letter: Letter,
    *,
    batch: BatchParcel | None = None,
    direct: DirectParcel | None = None,
    failure: Reject | None = None,
) -> RedriveParcel:
    if direct is not None and direct.rejects and not direct.readings:  # nothing of it is any better than it was
        failure, direct = direct.rejects[0], None
    cursor = None
    if letter.seq is not None and letter.source and letter.stream and letter.epoch is not None:
        cursor = (letter.source, letter.stream, letter.epoch)
    return RedriveParcel(
        letter.origin, letter.id, letter.by, letter.seq, letter.records, cursor, batch, direct, failure
    )


def _batch(letter: Letter, now_us: int) -> BatchParcel:
    envelope = wire.decode(letter.payload, letter.content_type or wire.CBOR)
    header = envelope.header
    gateway = topics.parse(letter.topic).ident
    if header.gateway != gateway:
        raise DecodeError("identity-mismatch", "gw", f"{header.gateway} published on the topic of {gateway}")
    notes = tuple((header.seq0 + position, note) for position, note in envelope.notes)
    parcel = BatchParcel(letter.origin, header, Batch.from_envelope(envelope, now_us), notes)
    if letter.seq is None:
        return parcel
    booked = (letter.source, letter.stream, letter.epoch, letter.seq + letter.records - 1)
    if booked != (header.gateway, header.stream, header.epoch, header.last) or header.seq0 > letter.seq:
        raise DecodeError("header-differs", "payload", "the header is not the one under which the letter was booked")
    return parcel.after(letter.seq - 1)


@dataclass(frozen=True, slots=True)
class _Sender:
    """Who sent a letter, what format it is in, and whether it may speak for others."""

    source: str
    content_type: str
    is_for_others: bool = False


def _sender(letter: Letter, default_content_type: str, sources: Sources) -> _Sender:
    if letter.source:
        return _Sender(letter.source, letter.content_type)
    if letter.topic.startswith(f"{topics.ROOT}/"):
        topic = topics.parse(letter.topic)
        chosen = letter.content_type_now or letter.content_type or default_content_type
        return _Sender(topic.ident, chosen, topic.kind == "push")
    device, configured, _ = sources.find(letter.topic)
    if not configured:
        raise unconfigured(letter.topic)
    chosen = letter.content_type_now or content_type_by(letter.content_type, configured)
    return _Sender(check_id(device, "topic"), chosen)


def _check_shard(letter: Letter, sources: Sources) -> None:
    if letter.shard != shard_of_topic(letter.topic, sources):
        detail = f"{letter.topic[:120]!r} was taken for shard {letter.shard} by the command, whose sources are others than ours"
        raise DecodeError("other-shard", "topic", detail)


def _message(letter: Letter, sender: _Sender) -> Decoded:
    """A direct message: all of it, or the one value that was left out."""
    decoded = formats.decode(sender.content_type, letter.payload, sender.source, letter.received_us)
    if decoded.uplink is not None:
        check_speaker(decoded.uplink, sender.source, is_for_others=sender.is_for_others)
    return _at(decoded, letter.place) if letter.scope == "value" else decoded


def _field(letter: Letter, default_content_type: str) -> Decoded:
    """A gateway's raw note. When the gateway accepted it is not known, so it must carry its own time."""
    note = _NOTE.match(letter.detail)
    if note is None or _CUT.search(letter.detail):
        raise DecodeError("not-kept", "payload", "the gateway's note does not hold the whole message")
    device = check_id(letter.place.rpartition("/")[2], "topic")
    content_type = letter.content_type_now or default_content_type
    decoded = formats.decode(content_type, letter.payload, device, letter.received_us)
    later = formats.decode(content_type, letter.payload, device, letter.received_us + 1)
    if decoded.readings != later.readings:
        raise DecodeError("no-time", "payload", "it carries no time of its own, and when it was accepted is not known")
    return decoded if note["reason"] in _WHOLE_REASONS else _at(decoded, note["where"])


def _at(decoded: Decoded, place: str) -> Decoded:
    """The value at one place of a message; the others were stored when it came."""
    places = decoded.places
    if places is None:  # the short way of the ordinary message
        places = [f"$.values.{reading.metric}" for reading in decoded.readings]
    readings = [reading for at, reading in zip(places, decoded.readings, strict=True) if at == place]
    rejects = [reject for reject in decoded.rejects if reject.where == place]
    if len(readings) + len(rejects) != 1:
        raise DecodeError(
            "place-not-found", place, "the message reads differently now; which value it was is not clear"
        )
    return Decoded(readings, rejects)


def _direct(letter: Letter, source: str, decoded: Decoded, now_us: int) -> DirectParcel:
    low, high = now_us - PAST_US_MAX, now_us + FUTURE_US_MAX
    readings = [reading for reading in decoded.readings if low <= reading.time_us <= high]
    absurd = [
        Reject("implausible-time", "t", f"{reading.name}: {reading.time_us} µs since 1970", reading)
        for reading in decoded.readings
        if not low <= reading.time_us <= high
    ]
    names = tuple(reading.name for reading in readings)
    is_whole = letter.scope in ("message", "value")
    rejects = [*decoded.rejects, *absurd]
    key = _key(letter, decoded) if letter.scope == "message" else None
    return DirectParcel(letter.origin, source, names, readings, rejects, b"", key, is_whole=is_whole)


def _key(letter: Letter, decoded: Decoded) -> Key | None:
    """Of a message that was stored in part the key is known, and says nothing about the rest; so only of a whole one."""
    if decoded.uplink is not None:
        return key_of_uplink(decoded.uplink)
    return None if letter.key is None else Key(letter.key, letter.key_body or b"")


def shard_of_topic(topic: str, sources: Sources) -> int:
    """Whose business a letter is: the shard of who the topic names, whatever else is wrong with the topic."""
    if topic.startswith(f"{topics.ROOT}/"):
        return shard_of_text(topic.rpartition("/")[2])
    return sources.find(topic)[2]
