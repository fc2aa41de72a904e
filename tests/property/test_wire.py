"""The wire: what goes in comes out, and any bytes either decode or raise one DecodeError that says what and where."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet import control, formats, topics, wire
from citynet.batch import Batch
from citynet.errors import DecodeError
from citynet.ids import SHARDS, shard_of
from citynet.notes import ClockNote, EventNote, LossNote, Note, RawNote
from citynet.reading import Reading

NOW_US = 1_800_000_000_000_000
ids = st.text("abcXYZ019._-", min_size=1, max_size=12)
readings = st.builds(
    Reading,
    ids,
    ids,
    st.integers(NOW_US - 30 * 86_400_000_000, NOW_US),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 255),
)
texts = st.text(max_size=20)
notes = st.one_of(
    st.integers(1, 50).map(lambda span: LossNote(1, span, "cap")),
    st.builds(ClockNote, texts, st.integers(-(1 << 60), 1 << 60)),
    st.builds(EventNote, ids, texts, texts, st.integers(0, 1 << 60)),
    st.builds(RawNote, texts, st.binary(max_size=40), texts),
)


def batch_of(rows: list[Reading], extra: list[Note], seq0: int) -> tuple[wire.Header, list[tuple[int, Note]]]:
    """Place the notes after the readings, each at the numbers it stands for."""
    placed: list[tuple[int, Note]] = []
    position = len(rows)
    for note in extra:
        at = note
        if isinstance(note, LossNote):
            at = LossNote(seq0 + position, seq0 + position + note.span - 1, note.reason)
        placed.append((position, at))
        position += note.span
    return wire.Header("gw-1", "telemetry", 77, seq0, position, seq0 + position), placed


@given(
    st.lists(readings, max_size=40),
    st.lists(notes, max_size=5),
    st.integers(1, 1 << 40),
    st.sampled_from([wire.CBOR, wire.JSON]),
)
def test_round_trip(rows: list[Reading], extra: list[Note], seq0: int, content_type: str) -> None:
    if not rows and not extra:
        return
    header, placed = batch_of(rows, extra, seq0)
    envelope = wire.decode(wire.encode(header, rows, placed, content_type=content_type), content_type)
    assert envelope.header == header
    assert envelope.readings() == rows
    assert list(envelope.notes) == placed
    batch = Batch.from_envelope(envelope, NOW_US)
    assert list(batch.seq) == list(range(seq0, seq0 + len(rows)))
    assert [envelope.names[i] for i in batch.index] == [r.name for r in rows]
    assert batch.time_us.tolist() == [r.time_us for r in rows]


def try_decode(payload: bytes, content_type: str) -> None:
    """Decode all the way to columns; anything but success or DecodeError fails the test."""
    try:
        envelope = wire.decode(payload, content_type)
    except DecodeError as error:
        assert error.reason
        assert error.where
        return
    batch = Batch.from_envelope(envelope, NOW_US)
    assert len(batch) + len(batch.rejects) == len(envelope)


@given(st.binary(max_size=300), st.sampled_from([wire.CBOR, wire.JSON, "text/plain"]))
def test_any_bytes(payload: bytes, content_type: str) -> None:
    try_decode(payload, content_type)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=16),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
typed_arrays = st.builds(
    cbor2.CBORTag, st.sampled_from([64, 65, 69, 70, 71, 73, 77, 78, 79, 81, 85, 86, 99]), st.binary(max_size=32)
)


@given(
    st.sampled_from(["v", "gw", "st", "ep", "s0", "n", "hi", "names", "i", "t0", "dt", "x", "q", "notes"]),
    json_values | typed_arrays,
)
def test_any_wrong_field(key: str, value: Any) -> None:
    body = cbor2.loads(wire.encode(wire.Header("gw-1", "alarm", 7, 1, 3), [Reading("d", "m", NOW_US, 1.0)] * 3))
    body[key] = value
    try_decode(cbor2.dumps(body), wire.CBOR)


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_flipped_byte(position: int, value: int) -> None:
    rows = [Reading("d", "m", NOW_US + k, k * 0.1) for k in range(9)]
    payload = bytearray(wire.encode(wire.Header("gw-1", "alarm", 7, 1, 10), rows, [(9, RawNote("t", b"x", "r"))]))
    payload[position % len(payload)] = value
    try_decode(bytes(payload), wire.CBOR)
    try_decode(bytes(payload[: position % len(payload)]), wire.CBOR)


@pytest.mark.parametrize(
    ("change", "reason", "where"),
    [
        ({"x": [1.0]}, "length-mismatch", "x"),
        ({"n": 4}, "count-mismatch", "n"),
        ({"names": ["no-slash"]}, "bad-name", "names[0]"),
        ({"names": ["d/m", "d/m"]}, "repeated-name", "names"),
        ({"i": [0, 0, -1]}, "value-too-large", "i"),
        ({"x": [1.0, True, 2.0]}, "bad-value", "x[1]"),
        ({"notes": [{"k": 0, "kind": "loss", "from": 9, "to": 9, "reason": ""}]}, "out-of-place", "notes[0].from"),
        ({"notes": [{"k": 1, "kind": "what"}]}, "unknown-note", "notes[0].kind"),
        ({"q": [0, 0, 300]}, "value-too-large", "q"),
        ({"st": "video"}, "unknown-stream", "st"),
        ({"v": 2}, "out-of-range", "v"),
        ({"ep": 0}, "out-of-range", "ep"),
        ({"ep": 2**63}, "out-of-range", "ep"),
        ({"gw": "a/b"}, "bad-identifier", "gw"),
    ],
)
def test_errors_say_what_and_where(change: dict[str, Any], reason: str, where: str) -> None:
    rows = [Reading("d", "m", NOW_US + k, 1.0) for k in range(3)]
    body = json.loads(wire.encode(wire.Header("gw-1", "alarm", 7, 1, 3), rows, content_type=wire.JSON))
    with pytest.raises(DecodeError) as caught:
        wire.decode(json.dumps(body | change).encode(), wire.JSON)
    assert (caught.value.reason, caught.value.where) == (reason, where)


def test_a_broken_body_keeps_its_header() -> None:
    rows = [Reading("d", "m", NOW_US + k, 1.0) for k in range(3)]
    body = json.loads(wire.encode(wire.Header("gw-1", "alarm", 7, 5, 3), rows, content_type=wire.JSON))
    body["dt"] = "nonsense"
    with pytest.raises(wire.EnvelopeError) as caught:
        wire.decode(json.dumps(body).encode(), wire.JSON)
    assert caught.value.header == wire.Header("gw-1", "alarm", 7, 5, 3)


@pytest.mark.parametrize("offset_us", [-401 * 86_400_000_000, 2 * 3_600_000_000, 1 << 62, -(1 << 62)])
def test_absurd_times_are_rejected_one_by_one(offset_us: int) -> None:
    rows = [
        Reading("d", "m", NOW_US, 1.0),
        Reading("d", "m", NOW_US + offset_us, 2.0),
        Reading("d", "m", NOW_US + 1, 3.0),
    ]
    batch = Batch.from_envelope(wire.decode(wire.encode(wire.Header("gw-1", "alarm", 7, 1, 3), rows)), NOW_US)
    assert batch.value.tolist() == [1.0, 3.0]
    assert [(seq, reject.reason) for seq, reject in batch.rejects] == [(2, "implausible-time")]


@pytest.mark.parametrize("t0", [-(1 << 62), (1 << 63) - 1, 0])
def test_an_absurd_base_time_rejects_all(t0: int) -> None:
    rows = [Reading("d", "m", NOW_US, 1.0)] * 2
    body = json.loads(wire.encode(wire.Header("gw-1", "alarm", 7, 1, 2), rows, content_type=wire.JSON)) | {"t0": t0}
    batch = Batch.from_envelope(wire.decode(json.dumps(body).encode(), wire.JSON), NOW_US)
    assert len(batch) == 0
    assert len(batch.rejects) == 2


def test_an_index_out_of_range_costs_one_reading() -> None:
    rows = [Reading("d", "m", NOW_US, 1.0)] * 3
    body = json.loads(wire.encode(wire.Header("gw-1", "alarm", 7, 1, 3), rows, content_type=wire.JSON)) | {
        "i": [0, 7, 0]
    }
    batch = Batch.from_envelope(wire.decode(json.dumps(body).encode(), wire.JSON), NOW_US)
    assert [(seq, reject.reason) for seq, reject in batch.rejects] == [(2, "index-out-of-range")]


@given(st.binary(max_size=200), st.sampled_from([formats.THINGSBOARD, formats.SENML]))
def test_any_bytes_as_device_message(payload: bytes, content_type: str) -> None:
    try:
        decoded = formats.decode(content_type, payload, "dev-1", NOW_US)
    except DecodeError as error:
        assert error.reason
        return
    assert decoded.readings or decoded.rejects or content_type == formats.SENML


@given(json_values.filter(lambda v: not isinstance(v, bytes)), st.sampled_from([formats.THINGSBOARD, formats.SENML]))
def test_any_json_as_device_message(body: Any, content_type: str) -> None:
    try:
        payload = json.dumps(body).encode()
    except TypeError:  # bytes somewhere inside
        return
    for candidate in (payload, b"[" + payload + b"]"):
        try:
            formats.decode(content_type, candidate, "dev-1", NOW_US)
        except DecodeError as error:
            assert error.where


@given(st.binary(max_size=100))
def test_any_bytes_as_control_message(payload: bytes) -> None:
    for kind in (control.Ack, control.Hello, control.Status):
        try:
            control.decode(payload, kind)
        except DecodeError as error:
            assert error.reason == "bad-control-message"


@given(ids)
def test_topics_round_trip(identifier: str) -> None:
    assert topics.parse(topics.up(identifier)) == topics.Topic("up", identifier, shard_of(identifier))
    assert topics.parse(topics.hello(identifier)) == topics.Topic("hello", identifier)
    assert 0 <= shard_of(identifier) < SHARDS


@given(st.text(max_size=60))
def test_any_topic(topic: str) -> None:
    for candidate in (topic, f"citynet/v1/{topic}"):
        try:
            topics.parse(candidate)
        except DecodeError as error:
            assert error.where == "topic"
