"""SenML against RFC 8428: its examples (section 5.1 and 6), every base field, relative time, and what must be refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet import formats
from citynet.errors import DecodeError

ACCEPT_US = 1_800_000_000_000_000
LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6,
    "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip
Pack = list[dict[str, Any]]


def decode(pack: object, device: str = "d") -> formats.Decoded:
    """A pack through both serialisations, which must say the same."""
    in_json = formats.decode(formats.SENML, json.dumps(pack).encode(), device, ACCEPT_US)
    if isinstance(pack, list):
        numbered = [{LABELS.get(label, label): value for label, value in record.items()} for record in pack]
        assert formats.decode(formats.SENML_CBOR, cbor2.dumps(numbered), device, ACCEPT_US) == in_json
    return in_json


def rows(pack: Pack, device: str = "d") -> list[tuple[str, float, float]]:
    """(metric, s since 1970, value)"""
    return [(r.metric, r.time_us / 1e6, r.value) for r in decode(pack, device).readings]


def reason(pack: object) -> tuple[str, str]:
    with pytest.raises(DecodeError) as caught:
        decode(pack)
    return caught.value.reason, caught.value.where


def test_multiple_datapoints() -> None:
    """Section 5.1.2: seven currents, one a second, ending at the base time."""
    base = {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e9, "bu": "A", "bver": 5}
    currents = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    pack = [{**base, "n": "voltage", "u": "V", "v": 120.1}]
    pack += [{"n": "current", "t": t, "v": v} for t, v in zip(range(-5, 0), currents[:5], strict=True)]
    pack += [{"n": "current", "v": 1.7}]
    found = rows(pack)
    assert found[0] == ("voltage", 1276020076.001, 120.1)
    assert found[1] == ("current", 1276020071.001, 1.2)
    assert found[-1] == ("current", 1276020076.001, 1.7)
    assert len(found) == 7


def test_multiple_measurements_of_a_mobile_sensor() -> None:
    """Section 5.1.3: a base time that is replaced half way, a name that is the base name alone, and relative seconds."""
    pack = [
        {"bn": "urn:dev:ow:10e2073a01080063", "bt": 1.320067464e9, "bu": "%RH", "v": 20},
        {"u": "lon", "v": 24.30621},
        {"u": "lat", "v": 60.07965},
        {"t": 60, "v": 20.3},
        {"u": "lon", "t": 60, "v": 24.30622},
    ]
    assert rows(pack) == [
        ("10e2073a01080063", 1320067464.0, 20.0),
        ("10e2073a01080063", 1320067464.0, 24.30621),
        ("10e2073a01080063", 1320067464.0, 60.07965),
        ("10e2073a01080063", 1320067524.0, 20.3),
        ("10e2073a01080063", 1320067524.0, 24.30622),
    ]


def test_multiple_data_types() -> None:
    """Section 5.1.5."""
    pack = [
        {"bn": "urn:dev:ow:10e2073a01080063:", "n": "temp", "u": "Cel", "v": 23.1},
        {"n": "label", "vs": "Machine Room"},
        {"n": "open", "vb": False},
        {"n": "nfc-reader", "vd": "aGkgCg"},
    ]
    decoded = decode(pack)
    assert [(r.metric, r.value) for r in decoded.readings] == [("temp", 23.1), ("open", 0.0)]
    assert [(r.reason, r.where) for r in decoded.rejects] == [("not-a-number", "$[1].vs"), ("not-a-number", "$[3].vd")]


def test_collection_of_resources() -> None:
    """Section 5.1.6, and the same pack when the base name is the topic's device."""
    pack = [{"bn": "2001:db8::2/", "n": "temperature", "u": "Cel", "v": 27.2}, {"n": "humidity", "u": "%RH", "v": 80}]
    assert [(m, v) for m, _, v in rows(pack)] == [("temperature", 27.2), ("humidity", 80.0)]
    assert [m for m, _, _ in rows([{"bn": "well-7/", "n": "gas", "v": 1}], "well-7")] == ["gas"]


def test_a_record_of_base_fields_alone_gives_no_reading() -> None:
    """Section 5.1.7."""
    pack = [{"bn": "urn:dev:ow:10e2073a01080063:"}, {"n": "temp", "u": "Cel", "v": 23.1}]
    assert [(m, v) for m, _, v in rows(pack)] == [("temp", 23.1)]


@pytest.mark.parametrize(
    ("bt", "t", "expected_us"),
    [
        (0, -10, ACCEPT_US - 10_000_000),
        (-5, 2, ACCEPT_US - 3_000_000),
        ((1 << 28) - 1, 0, ACCEPT_US + ((1 << 28) - 1) * 1_000_000),
        (1 << 28, 0, (1 << 28) * 1_000_000),
        ((1 << 28) - 1, 1, (1 << 28) * 1_000_000),
        (-(1 << 28) - 5, 0, ACCEPT_US - ((1 << 28) + 5) * 1_000_000),
    ],
)
def test_relative_and_absolute_time(bt: float, t: float, expected_us: int) -> None:
    """Section 4.5.3: below 2**28 it is relative to now, however far below."""
    assert [r.time_us for r in decode([{"bt": bt, "n": "a", "t": t, "v": 1}]).readings] == [expected_us]


def test_base_value_is_added_to_numbers_until_it_is_replaced() -> None:
    pack = [{"bv": 100, "n": "a", "v": 1.5}, {"n": "b", "v": -1}, {"bv": 0, "n": "c", "v": 2}, {"n": "e", "vb": True}]
    assert [(m, v) for m, _, v in rows(pack)] == [("a", 101.5), ("b", 99.0), ("c", 2.0), ("e", 1.0)]


def test_sums_are_metrics_of_their_own() -> None:
    pack = [{"bs": 1000, "n": "flow", "v": 2.5, "s": 7}, {"n": "flow", "s": 9}, {"n": "idle", "v": 1}, {"n": "rest"}]
    found = [(m, v) for m, _, v in rows(pack)]
    assert found == [("flow.sum", 1007.0), ("flow", 2.5), ("flow.sum", 1009.0), ("idle", 1.0), ("rest.sum", 1000.0)]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"n": "a", "v": 1, "vb": True}, ("several-values", "$[0]")),
        ({"n": "a", "vb": 1}, ("wrong-type", "$[0].vb")),
        ({"n": "a"}, ("not-a-number", "$[0].v")),
        ({"n": "a", "v": None}, ("not-a-number", "$[0].v")),
        ({"n": "", "v": 1}, ("bad-metric", "$[0].v")),
        ({"bv": 1, "n": "a", "v": 1 << 60}, ("integer-too-large", "$[0].v")),
    ],
)
def test_a_record_that_is_no_reading_costs_only_itself(record: dict[str, Any], expected: tuple[str, str]) -> None:
    decoded = decode([record, {"bv": 0, "n": "good", "v": 1}])
    assert [r.metric for r in decoded.readings] == ["good"]
    assert [(r.reason, r.where) for r in decoded.rejects] == [expected]


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        ([{"n": "a", "v": 1, "must_": 1}], ("unknown-label", "$[0].must_")),
        ([{"bver": 11, "n": "a", "v": 1}], ("bad-version", "$[0].bver")),
        ([{"bver": True, "n": "a", "v": 1}], ("bad-version", "$[0].bver")),
        ([{"bver": 5, "n": "a", "v": 1}, {"bver": 10, "n": "b", "v": 1}], ("bad-version", "$[1].bver")),
        ([{"bt": "x", "n": "a", "v": 1}], ("wrong-type", "$[0].bt")),
        ([{"bs": True, "n": "a", "s": 1}], ("wrong-type", "$[0].bs")),
        ([{"n": "a", "t": 1 << 60, "v": 1}], ("wrong-type", "$[0].t")),
        ([{"bn": 1, "v": 1}], ("wrong-type", "$[0].bn")),
    ],
)
def test_a_pack_that_cannot_be_resolved_is_refused_whole(pack: Pack, expected: tuple[str, str]) -> None:
    assert reason(pack) == expected


def test_labels_that_are_not_known_are_passed_over() -> None:
    assert [m for m, _, _ in rows([{"n": "a", "v": 1, "ut": 5, "u": "Cel", "x-note": "y"}])] == ["a"]
    extended = cbor2.dumps([{0: "a", 2: 1, 99: "x", -7: 2}])
    assert formats.decode(formats.SENML_CBOR, extended, "d", ACCEPT_US).readings


@pytest.mark.parametrize(
    ("record", "expected"), [({0: "a", "n": "b", 2: 1}, "repeated-label"), ({b"n": "a", 2: 1}, "wrong-type")]
)
def test_labels_that_cannot_be_meant_in_cbor(record: dict[object, object], expected: str) -> None:
    with pytest.raises(DecodeError) as caught:
        formats.decode(formats.SENML_CBOR, cbor2.dumps([record]), "d", ACCEPT_US)
    assert caught.value.reason == expected


def test_decimal_fractions_take_part_in_resolution() -> None:
    pack = [{-3: Decimal("1276020076.001"), -5: Decimal("100.5"), 0: "a", 2: Decimal("0.5")}]
    (reading,) = formats.decode(formats.SENML_CBOR, cbor2.dumps(pack), "d", ACCEPT_US).readings
    assert (reading.time_us, reading.value) == (1276020076001000, 101.0)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
    | st.decimals(allow_nan=True)
)  # fmt: skip
labels = st.sampled_from([*LABELS.values(), 9, -7]) | st.sampled_from([*LABELS, "x_", "y"]) | st.booleans()


@given(st.lists(st.dictionaries(labels, scalars, max_size=5), max_size=4))
def test_any_pack_gives_readings_and_rejects_or_one_error(pack: list[dict[object, object]]) -> None:
    try:
        decoded = formats.decode(formats.SENML_CBOR, cbor2.dumps(pack), "d", ACCEPT_US)
    except DecodeError as error:
        assert error.reason
    else:
        assert all(isinstance(reading.value, float) for reading in decoded.readings)
