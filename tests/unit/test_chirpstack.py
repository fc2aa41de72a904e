"""ChirpStack's uplink events: flattening, time, signal, identity, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet import formats
from citynet.errors import DecodeError
from citynet.formats import Uplink

ACCEPT_US = 1_800_000_000_000_000
EUI = "0101010101010101"


def event(**more: Any) -> dict[str, Any]:
    """An uplink as ChirpStack v4 sends it, shortened to what matters and a few fields that do not."""
    return {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": "2026-07-18T09:34:15.775023242+00:00",
        "deviceInfo": {"tenantName": "City", "deviceName": "well 7", "devEui": EUI, "tags": {"kind": "gas"}},
        "devAddr": "00189440",
        "dr": 1,
        "fCnt": 41,
        "fPort": 1,
        "data": "qg==",
        "object": {"level_m": 1.25},
        "txInfo": {"frequency": 868100000},
        **more,
    }


def decode(body: object) -> formats.Decoded:
    return formats.decode(formats.CHIRPSTACK, json.dumps(body).encode(), "lora-1", ACCEPT_US)


def test_an_uplink_becomes_readings_of_its_device() -> None:
    heard = [
        {"gatewayId": "a", "rssi": -60, "snr": 4.5, "context": "x"},
        {"gatewayId": "b", "rssi": -90, "snr": 9.0},
        {"gatewayId": "c", "rssi": -110, "snr": 9.0},
    ]
    decoded = decode(event(rxInfo=heard))
    assert [(r.device, r.metric, r.value) for r in decoded.readings] == [
        (EUI, "level_m", 1.25),
        (EUI, "rssi_dbm", -90.0),
        (EUI, "snr_db", 9.0),
    ]
    assert {r.time_us for r in decoded.readings} == {1_784_367_255_775_023}
    assert decoded.rejects == []
    assert decoded.uplink == Uplink(EUI, 41, "3ac7e3c4-4401-4b8d-9386-a5c902f9202d")


def test_the_codecs_output_is_flattened_with_dots() -> None:
    output = {
        "soil": {"temp": 4, "probes": [1, 2.5]},
        "open": True,
        "state": "ok",
        "note": None,
        "bad name": 1,
        "big": 1 << 60,
    }
    decoded = decode(event(object=output))
    assert [(r.metric, r.value) for r in decoded.readings] == [
        ("soil.temp", 4.0),
        ("soil.probes.0", 1.0),
        ("soil.probes.1", 2.5),
        ("open", 1.0),
    ]
    assert [(r.reason, r.where) for r in decoded.rejects] == [
        ("bad-metric", "$.object.bad name"),
        ("integer-too-large", "$.object.big"),
    ]


def test_what_is_nested_too_deep_is_rejected() -> None:
    output: dict[str, Any] = {"v": 1}
    for _ in range(8):
        output = {"a": output}
    decoded = decode(event(object=output))
    assert (decoded.readings, [r.reason for r in decoded.rejects]) == ([], ["not-a-number"])


def test_fields_at_their_default_are_left_out_by_the_sender() -> None:
    body = event(rxInfo=[{"gatewayId": "a", "rssi": -60}])
    for name in ("time", "fCnt"):
        del body[name]
    decoded = decode(body)
    assert [(r.metric, r.value, r.time_us) for r in decoded.readings] == [
        ("level_m", 1.25, ACCEPT_US),
        ("rssi_dbm", -60.0, ACCEPT_US),
        ("snr_db", 0.0, ACCEPT_US),
    ]
    assert decoded.uplink is not None
    assert decoded.uplink.counter == 0


def test_the_codecs_own_metric_goes_before_the_signal() -> None:
    decoded = decode(event(object={"snr_db": 1}, rxInfo=[{"rssi": -60, "snr": 9}]))
    assert [(r.metric, r.value) for r in decoded.readings] == [("snr_db", 1.0), ("rssi_dbm", -60.0)]


def test_an_uplink_without_a_codec_is_kept_for_a_person() -> None:
    body = event()
    del body["object"]
    assert [r.reason for r in decode(body).rejects] == ["no-object"]
    del body["data"]  # only commands of the network
    assert decode(body).rejects == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deduplicationId": ""}, "wrong-shape"),
        ({"deduplicationId": "a b"}, "wrong-shape"),
        ({"deviceInfo": {"devEui": "gas-1"}}, "wrong-shape"),
        ({"deviceInfo": {}}, "wrong-shape"),
        ({"time": "2026-07-18T09:34:15"}, "wrong-shape"),
        ({"time": 5}, "wrong-shape"),
        ({"fCnt": -1}, "wrong-shape"),
        ({"object": [1]}, "wrong-shape"),
    ],
)
def test_what_is_no_uplink(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(event(**changes))
    assert caught.value.reason == reason


def test_the_device_is_lower_case() -> None:
    decoded = decode(event(deviceInfo={"devEui": "ABCDEF0123456789"}))
    assert {r.device for r in decoded.readings} == {"abcdef0123456789"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(event())), json_values, max_size=3), json_values)
def test_any_change_gives_readings_and_rejects_or_one_error(changes: dict[str, Any], output: object) -> None:
    try:
        decoded = decode({**event(object=output), **changes})
    except DecodeError as error:
        assert error.reason
    else:
        assert all(isinstance(reading.value, float) for reading in decoded.readings)


@given(st.binary(max_size=80))
def test_any_bytes(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        formats.decode(formats.CHIRPSTACK, payload, "d", ACCEPT_US)
