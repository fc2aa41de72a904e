"""Foreign JSON on the local broker: what is read, what is refused, mistakes in the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet.errors import ConfigError, DecodeError
from citynet.reading import Reading
from citynet.runtime.settings import load
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.drivers.mapping_settings import MappingSettings, overlap
from citynet_gateway.intake import Sorter
from citynet_gateway.mapping import Mapping, find
from citynet_gateway.settings import GatewaySettings

NOW_US = 1_790_000_000_000_000
PLC: dict[str, Any] = {
    "topic": "plc/+/data/#",
    "device": "plc-{2}",
    "records": "batch",
    "time_path": "at",
    "time_format": "s",
    "values": [
        {"path": "t.0", "metric": "temperature_c", "unit": "Cel", "scale": 0.1, "offset": -40},
        {"path": "pump", "metric": "pump_alarm", "words": {"on": 1, "off": 0}},
        {"path": "$.site", "metric": "site", "required": True},
    ],
}


def mapping(**changes: object) -> Mapping:
    return Mapping(MappingSettings.model_validate({**PLC, **changes}))


def decoded(body: object, topic: str = "plc/7/data/x", **changes: object) -> tuple[list[Reading], list[str]]:
    found = mapping(**changes).decode(topic, json.dumps(body).encode(), NOW_US)
    return found.readings, [f"{item.reason} at {item.where}" for item in found.rejects]


def test_records_with_paths_scale_words_and_the_payload_s_own_fields() -> None:
    body = {"site": 3, "batch": [{"at": 10, "t": [650], "pump": "on"}, {"at": "11.5", "t": ["700"], "pump": True}]}
    assert decoded(body) == (
        [
            Reading("plc-7", "temperature_c", 10_000_000, 25.0),
            Reading("plc-7", "pump_alarm", 10_000_000, 1.0),
            Reading("plc-7", "site", 10_000_000, 3.0),
            Reading("plc-7", "temperature_c", 11_500_000, 30.0),
            Reading("plc-7", "pump_alarm", 11_500_000, 1.0),
            Reading("plc-7", "site", 11_500_000, 3.0),
        ],
        [],
    )


def test_a_bad_value_or_record_costs_only_itself() -> None:
    body = {
        "batch": [
            {"at": 10, "t": [{}], "pump": "broken"},
            {"t": [1]},
            {"at": "noon", "t": [1]},
            {"at": 11, "else": 1},
            7,
            {"at": 12, "t": [500], "pump": None},
        ]
    }
    readings, rejects = decoded(body)
    assert readings == [Reading("plc-7", "temperature_c", 12_000_000, 10.0)]
    assert rejects == [
        "not-a-number at t.0", "not-a-number at pump", "absent at $.site",
        "no-time at batch[1].at", "bad-time at batch[2].at", "absent at $.site", "no-values at batch[3].values",
        "no-time at batch[4].at", "absent at $.site",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("time_format", "text", "us"),
    [
        ("s", 10, 10_000_000), ("ms", 10_500, 10_500_000), ("us", 7, 7), ("s", 1.25, 1_250_000), ("ms", "10500", 10_500_000),
        ("iso", "1970-01-01T08:00:01+08:00", 1_000_000), ("iso", "1970-01-01T08:00:01", 1_000_000),
        ("%d.%m.%Y %H:%M", "01.01.1970 08:01", 60_000_000), ("%d.%m.%Y %H:%M %z", "01.01.1970 00:01 +0000", 60_000_000),
    ],
)  # fmt: skip
def test_times(time_format: str, text: object, us: int) -> None:
    body = {"site": 1, "batch": {"at": text}}
    readings, rejects = decoded(body, time_format=time_format, time_zone="Asia/Shanghai")
    assert ([item.time_us for item in readings], rejects) == ([us], [])
    readings, rejects = decoded({"site": 1, "batch": [{"at": [1]}, {"at": True}]}, time_format=time_format)
    assert (readings, [reject.split()[0] for reject in rejects]) == ([], ["bad-time"] * 2)


def test_the_device_from_a_path_and_the_time_of_acceptance() -> None:
    changes = {"device": "", "device_path": "id", "records": "", "time_path": ""}
    readings, rejects = decoded([{"id": 4, "pump": 1}, {"id": "no id", "pump": 1}, {"pump": 1}], **changes)
    assert readings == [Reading("4", "pump_alarm", NOW_US, 1.0)]
    assert rejects[1:] == ["bad-identifier at $[1].id", "bad-identifier at $[2].id"]


def test_a_payload_without_records_is_kept_whole_and_alarms_go_first() -> None:
    sorter = Sorter(["*_alarm"])
    for payload in (b"{", b'{"batch": []}', b"{}", b'{"batch":' + b" " * 300_000 + b"[]}"):
        (part,), rejected = mapping().interpret("plc/7/data", payload, sorter, NOW_US)
        assert (part.stream, part.readings, rejected) == (TELEMETRY, (), 1)
    body = json.dumps({"site": 1, "batch": [{"at": 1, "t": [1], "pump": 1}]}).encode()
    parts, rejected = mapping().interpret("plc/7/data", body, sorter, NOW_US)
    assert ([part.stream for part in parts], rejected) == ([ALARM, TELEMETRY], 0)


LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=4)
FILTERS = st.builds(lambda levels, last: "/".join([*levels, *last]), LEVELS, st.sampled_from([[], ["#"]]))
TOPICS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map("/".join)


@given(FILTERS, FILTERS, TOPICS)
def test_filters_that_both_match_a_topic_overlap(first: str, second: str, topic: str) -> None:
    both = [mapping(topic=name, device="x").matches(topic) for name in (first, second)]
    assert not all(both) or overlap(first, second)
    assert overlap(first, second) == overlap(second, first)


def test_filters_match_as_in_mqtt() -> None:
    assert [name for name in ("a/b", "a", "a/b/c", "b/b") if mapping(topic="a/+", device="x").matches(name)] == ["a/b"]
    assert [name for name in ("a", "a/b", "a/b/c", "b") if mapping(topic="a/#", device="x").matches(name)] == [
        "a",
        "a/b",
        "a/b/c",
    ]
    assert find([mapping(topic="b", device="x")], "a") is None
    assert not overlap("a/+", "b/+")
    assert not overlap("a/b", "a/b/c")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["batch", "at", "t", "pump", "site", "0"]), inner, max_size=5)
), max_leaves=20))  # fmt: skip
def test_any_json_is_read_or_refused(body: object) -> None:
    try:
        found = mapping().decode("plc/7/data", json.dumps(body).encode(), NOW_US)
    except DecodeError:
        return
    assert found.readings or found.rejects


def test_mistakes_in_the_settings_are_told_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "citynet.toml"
    path.write_text(
        '[[gateway.mappings]]\ntopic = "a/+b"\ndevice = "x"\nvalues = [{ path = "a..b", metric = "no id" }]\n'
        '[[gateway.mappings]]\ntopic = "b/+"\ndevice = "{3}"\ntime_format = "when"\n'
        'values = [{ path = "a", metric = "m" }, { path = "b", metric = "m" }]\n'
        '[[gateway.mappings]]\ntopic = "c/+"\ndevice = "x"\ntime_zone = "Mars"\nvalues = []\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(GatewaySettings, path)
    text = str(caught.value)
    for place in ("0.topic", "0.values.0.path", "0.values.0.metric", "1", "2.time_zone", "2.values"):
        assert f"gateway.mappings.{place}: " in text, place
    assert (
        "{3} is no level of b/+; time_format: 'when' is none of s, ms, us, iso and has no %; metric m is there twice"
        in text
    )
    path.write_text('[[gateway.mappings]]\ntopic = "field/#"\ndevice = "x"\nvalues = [{ path = "a", metric = "m" }]\n')
    with pytest.raises(ConfigError) as caught:
        load(GatewaySettings, path)
    assert "field/# overlaps field/gateway/+" in str(caught.value)
