"""Laws of dead letters: what a letter keeps is what was refused; what is stored and what is redriven make up the message."""

from __future__ import annotations

import json
import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from citynet import formats, topics
from citynet.formats import SENML, THINGSBOARD
from citynet.quality import BAD
from citynet.reading import Reading
from citynet_ingest.letter import Letter, decode_reading, encode_reading, reopen, shard_of_topic
from citynet_ingest.sources import Sources

NOW_US = 1_780_000_000_000_000
NO_SOURCES = Sources([])
NAMES = st.text("abcdefghij0123456789._-", min_size=1, max_size=12)
BAD_VALUES = st.sampled_from(["7", None, [1], {"x": 1}])


def letter(payload: bytes, content_type: str, place: str, scope: str = "value", detail: str = "") -> Letter:
    topic = topics.dev("lift-1") if scope != "field" else topics.up("gw-1")
    source = "gw-1" if scope == "field" else None
    return Letter(
        1, topic, source, None, None, None, 1, place, detail, content_type, payload, scope, NOW_US, "ann", None,
        shard_of_topic(topic, NO_SOURCES),
    )  # fmt: skip


@given(NAMES, NAMES, st.integers(-(1 << 62), 1 << 62), st.floats(width=64), st.integers(0, 255))
def test_a_refused_reading_is_kept_whole(device: str, metric: str, time_us: int, value: float, quality: int) -> None:
    reading = Reading(device, metric, time_us, value, quality)
    found = decode_reading(encode_reading(reading))
    if math.isfinite(value):
        assert found == reading
    else:
        assert (found.name, found.time_us, found.quality) == (reading.name, time_us, quality | BAD)
        assert math.isnan(found.value)


def _thingsboard(rows: list[dict[str, object]]) -> bytes:
    return json.dumps([{"ts": NOW_US // 1000 - k, "values": values} for k, values in enumerate(rows)]).encode()


def _senml(rows: list[dict[str, object]]) -> bytes:
    records = [
        {"n": f"lift-1/{name}", "t": NOW_US / 1e6 - k, "v": value}
        for k, row in enumerate(rows)
        for name, value in row.items()
    ]
    return json.dumps(records).encode()


@given(
    st.sampled_from([(THINGSBOARD, _thingsboard), (SENML, _senml)]),
    st.lists(
        st.dictionaries(NAMES, st.integers(-100, 100) | BAD_VALUES, min_size=1, max_size=5), min_size=1, max_size=5
    ),
    st.integers(-50, 50),
    st.booleans(),
)
def test_what_was_stored_and_what_is_redriven_is_the_message(
    kind: tuple[str, object], rows: list[dict[str, object]], instead: int, is_field: bool
) -> None:
    """A fix makes the refused values readable: every letter then gives its own value, and none gives what was stored."""
    content_type, encode = kind
    assert callable(encode)
    first = formats.decode(content_type, encode(rows), "lift-1", NOW_US)
    mended = encode([{name: v if isinstance(v, int) else instead for name, v in row.items()} for row in rows])
    found = Counter(first.readings)
    for reject in first.rejects:
        if is_field:
            detail = f"{reject.reason} at {reject.where}: {reject.detail}"
            given_letter = letter(mended, content_type, "field/gw-1/lift-1", "field", detail)
        else:
            given_letter = letter(mended, content_type, reject.where)
        again = reopen(given_letter, content_type, NO_SOURCES, NOW_US)
        assert again.failure is None
        assert again.direct is not None
        assert len(again.direct.readings) == 1
        found.update(again.direct.readings)
    assert found == Counter(formats.decode(content_type, mended, "lift-1", NOW_US).readings)


@given(
    st.binary(max_size=200),
    st.sampled_from(["batch", "message", "value", "reading", "field", "none", None]),
    st.text(max_size=30),
)
def test_any_bytes_are_readings_or_one_reason(payload: bytes, scope: str | None, place: str) -> None:
    again = reopen(
        letter(payload, THINGSBOARD, place, scope or "none", "bad-json at payload: x"), THINGSBOARD, NO_SOURCES, NOW_US
    )
    assert (again.failure is None) != (again.batch is None and again.direct is None)


def test_a_field_message_without_a_time_of_its_own_is_not_given_one() -> None:
    again = reopen(
        letter(b'{"a": 1}', "", "field/gw-1/lift-1", "field", "bad-json at payload: x"), THINGSBOARD, NO_SOURCES, NOW_US
    )
    assert again.failure is not None
    assert again.failure.reason == "no-time"
