"""From a field message to records: what is kept, where it goes, how a delivery is named."""

from __future__ import annotations

import json

import pytest

from citynet.formats import SENML, THINGSBOARD
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.intake import (
    RAW_BYTES_MAX,
    RAW_REASON_CHARS_MAX,
    RAW_TOPIC_CHARS_MAX,
    REJECTS_MAX,
    Part,
    Sorter,
    interpret,
    source_token,
)

NOW_US = 1_790_000_000_000_000


def take(body: object, topic: str = "field/gw/pump-1", content_type: str = THINGSBOARD) -> tuple[list[Part], int]:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return interpret(
        topic, payload, content_type, folder="field/gw", sorter=Sorter(["*_alarm", "door"]), accept_us=NOW_US
    )


def test_values_are_sorted_into_streams_alarms_first() -> None:
    parts, rejected = take({"level": 1, "flood_alarm": 1, "door": 0, "alarm_count": 4})
    assert [(part.stream, [item.metric for item in part.readings]) for part in parts] == [
        (ALARM, ["flood_alarm", "door"]),
        (TELEMETRY, ["level", "alarm_count"]),
    ]
    assert rejected == 0


def test_a_message_of_alarms_only_has_one_part() -> None:
    parts, _ = take({"ts": 5, "values": {"gas_alarm": True}})
    assert parts == [Part(ALARM, (Reading("pump-1", "gas_alarm", 5_000, 1.0),))]


def test_the_content_type_decides() -> None:
    parts, _ = take([{"n": "flow", "v": 2, "t": -3}], content_type=SENML)
    assert parts == [Part(TELEMETRY, (Reading("pump-1", "flow", NOW_US - 3_000_000, 2.0),))]


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("field/gw/bad id", "bad-identifier at topic"),
        ("field/other/pump-1", "unknown-topic at topic"),
        ("field/gw/a/b", "unknown-topic at topic"),
    ],
)
def test_a_topic_that_names_no_device_keeps_the_message(topic: str, reason: str) -> None:
    parts, rejected = take({"x": 1}, topic=topic)
    (note,) = parts[0].notes
    assert (parts[0].stream, rejected, note.topic, note.payload) == (TELEMETRY, 1, topic, b'{"x": 1}')
    assert note.reason.startswith(reason)


def test_a_bad_value_costs_only_itself() -> None:
    parts, rejected = take({"a": 1, "b": None, "c": "x", "d": 2})
    (part,) = parts
    assert [item.metric for item in part.readings] == ["a", "d"]
    assert rejected == 2
    assert [note.reason for note in part.notes] == ["not-a-number at $.b: None", "not-a-number at $.c: x"]
    assert [note.payload for note in part.notes] == [b'{"a": 1, "b": null, "c": "x", "d": 2}', b"x"]


def test_raw_notes_are_bounded() -> None:
    parts, rejected = take({f"m{k}": "no" for k in range(4_000)}, topic="field/gw/pump-1")
    assert rejected == REJECTS_MAX
    assert parts[0].notes[-1].reason == f"{4_000 - REJECTS_MAX + 1} more values of this message are no readings"
    (note,) = take(b"y" * (RAW_BYTES_MAX + 7), topic="field/gw/" + "t" * 2_000)[0][0].notes
    assert (len(note.payload), len(note.topic)) == (RAW_BYTES_MAX, RAW_TOPIC_CHARS_MAX)
    assert len(note.reason) <= RAW_REASON_CHARS_MAX
    assert note.reason.endswith(f"(first {RAW_BYTES_MAX} of {RAW_BYTES_MAX + 7} bytes)")


def test_a_token_names_one_delivery() -> None:
    base = source_token("t", 1, b"x", b"salt")
    assert base == source_token("t", 1, b"x", b"salt")
    others = [
        source_token(*args) for args in (("u", 1, b"x", b"salt"), ("t", 2, b"x", b"salt"), ("t", 1, b"y", b"salt"))
    ]
    assert len({base, *others, source_token("t", 1, b"x", b"other")}) == 5


def test_the_sorter_stays_bounded() -> None:
    sorter = Sorter(["*_alarm"])
    assert sum(sorter.is_alarm(f"m{k}_alarm") for k in range(25_000)) == 25_000
    assert len(sorter._known) <= 10_000
