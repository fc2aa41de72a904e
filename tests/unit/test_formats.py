"""Device formats: SenML by the RFC's own examples, ThingsBoard in its shapes, and what is rejected one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet import formats
from citynet.errors import DecodeError
from citynet.formats import thingsboard as thingsboard_format
from citynet.reading import Reading

ACCEPT_US = 1_800_000_000_000_000


def senml(text: str, device: str = "d") -> formats.Decoded:
    return formats.decode(formats.SENML, text.encode(), device, ACCEPT_US)


def thingsboard(text: str) -> formats.Decoded:
    return formats.decode(formats.THINGSBOARD, text.encode(), "d", ACCEPT_US)


def test_rfc_8428_single_datapoint() -> None:
    decoded = senml('[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]')
    assert decoded.readings == [Reading("d", "10e2073a01080063", ACCEPT_US, 23.1)]


def test_rfc_8428_multiple_datapoints() -> None:
    decoded = senml(
        '[{"bn":"urn:dev:ow:10e2073a01080063:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},'
        '{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3}]'
    )
    assert [(r.metric, r.time_us, r.value) for r in decoded.readings] == [
        ("voltage", 1_276_020_076_001_000, 120.1),
        ("current", 1_276_020_071_001_000, 1.2),
        ("current", 1_276_020_072_001_000, 1.3),
    ]


def test_rfc_8428_relative_times_count_from_acceptance() -> None:
    decoded = senml('[{"bn":"d/","bu":"%RH","n":"h","v":20,"t":-10},{"n":"h","v":21}]')
    assert [r.time_us for r in decoded.readings] == [ACCEPT_US - 10_000_000, ACCEPT_US]


def test_rfc_8428_base_value_and_boolean() -> None:
    decoded = senml('[{"bn":"d/","bv":100,"n":"a","v":1.5},{"n":"door","vb":true}]')
    assert [(r.metric, r.value) for r in decoded.readings] == [("a", 101.5), ("door", 1.0)]


def test_rfc_8428_text_and_data_values_are_rejected_one_by_one() -> None:
    decoded = senml('[{"n":"label","vs":"Machine Room"},{"n":"nfc","vd":"aGkgCg"},{"n":"open","v":2}]')
    assert [r.metric for r in decoded.readings] == ["open"]
    assert [(r.reason, r.where) for r in decoded.rejects] == [("not-a-number", "$[0].vs"), ("not-a-number", "$[1].vd")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "wrong-shape"),
        ("{}", "wrong-shape"),
        ('[{"bver":11,"n":"a","v":1}]', "bad-version"),
        ('[{"n":"a","v":1,"must_":1}]', "unknown-label"),
        ('[{"n":5,"v":1}]', "wrong-type"),
        ('[{"n":"a","t":"x","v":1}]', "wrong-type"),
        ('[{"n":"a","v":NaN}]', "bad-json"),
        ("[" * 5000, "bad-json"),
    ],
)
def test_broken_senml(text: str, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        senml(text)
    assert caught.value.reason == reason


def test_thingsboard_in_its_shapes() -> None:
    plain = thingsboard('{"temperature": 42.2, "open": true}')
    assert [(r.metric, r.time_us, r.value) for r in plain.readings] == [
        ("temperature", ACCEPT_US, 42.2),
        ("open", ACCEPT_US, 1.0),
    ]
    timed = thingsboard('[{"ts":1451649600512,"values":{"a":1}},{"ts":1451649601512,"values":{"a":2}}]')
    assert [(r.time_us, r.value) for r in timed.readings] == [
        (1_451_649_600_512_000, 1.0),
        (1_451_649_601_512_000, 2.0),
    ]


def test_thingsboard_bad_values_cost_only_themselves() -> None:
    decoded = thingsboard('{"ts":1,"values":{"a":1,"b":"x","c":null,"d":{"e":1},"bad name":1,"big":9007199254740993}}')
    assert [r.metric for r in decoded.readings] == ["a"]
    assert [r.reason for r in decoded.rejects] == ["not-a-number"] * 3 + ["bad-metric", "integer-too-large"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5", "wrong-shape"),
        ("[1]", "wrong-shape"),
        ("{}", "empty"),
        ('{"ts":"x","values":{}}', "bad-time"),
        ("{", "bad-json"),
    ],
)
def test_broken_thingsboard(text: str, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        thingsboard(text)
    assert caught.value.reason == reason


def test_unknown_content_type_and_size_are_refused() -> None:
    with pytest.raises(DecodeError, match="unknown-content-type"):
        formats.decode("text/html", b"{}", "d", 0)
    with pytest.raises(DecodeError, match="too-large"):
        formats.decode(formats.SENML, b" " * (formats.BYTES_MAX + 1), "d", 0)


def test_content_type_parameters_are_ignored() -> None:
    assert formats.decode("Application/SenML+JSON; charset=utf-8", b'[{"n":"a","v":1}]', "d", 5).readings


def test_rfc_8428_cbor_example() -> None:
    """Section 6: the voltage and current pack with integer labels, built label by label."""
    first = {-2: "urn:dev:ow:10e2073a0108006:", -3: 1276020076.001, -4: "A", -1: 5, 0: "voltage", 1: "V", 2: 120.1}
    pack = [first, {0: "current", 6: -5, 2: 1.2}, {0: "current", 6: -4, 2: 1.3}]
    decoded = formats.decode(formats.SENML_CBOR, cbor2.dumps(pack), "d", ACCEPT_US)
    assert [(r.metric, r.time_us, r.value) for r in decoded.readings] == [
        ("voltage", 1_276_020_076_001_000, 120.1),
        ("current", 1_276_020_071_001_000, 1.2),
        ("current", 1_276_020_072_001_000, 1.3),
    ]


def test_cbor_decimal_fractions_and_nan() -> None:
    pack = [{0: "a", 2: Decimal("23.4")}, {0: "b", 2: float("nan")}, {0: "c", 2: True}, {0: "e", 2: Decimal("1e400")}]
    decoded = formats.decode(formats.SENML_CBOR, cbor2.dumps(pack), "d", ACCEPT_US)
    assert [(r.metric, r.value) for r in decoded.readings] == [("a", 23.4), ("c", 1.0)]
    assert [r.where for r in decoded.rejects] == ["$[1].v", "$[3].v"]


@given(st.binary(max_size=120))
def test_any_bytes_as_cbor_pack(payload: bytes) -> None:
    try:
        formats.decode(formats.SENML_CBOR, payload, "d", ACCEPT_US)
    except DecodeError as error:
        assert error.reason


plain_values = (
    st.integers(-(1 << 60), 1 << 60) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=3) | st.none()
)


@given(st.integers(-(1 << 60), 1 << 60), st.dictionaries(st.text("ab. é", max_size=3), plain_values, max_size=4))
def test_the_short_way_of_thingsboard_equals_the_long_one(ts: int, values: dict[str, object]) -> None:
    """The ordinary message takes a short way; the value-by-value decoder is its oracle."""
    payload = json.dumps({"ts": ts, "values": values}).encode()

    def outcome(decoder: Callable[[bytes, str, int], formats.Decoded]) -> object:
        try:
            decoded = decoder(payload, "d", ACCEPT_US)
        except DecodeError as error:
            return (error.reason, error.where)
        places = decoded.places  # the short way leaves them out; they are told from the metrics then
        return decoded.readings, decoded.rejects, places or [f"$.values.{r.metric}" for r in decoded.readings]

    assert outcome(thingsboard_format.decode) == outcome(thingsboard_format._decode)
