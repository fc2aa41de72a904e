"""A decoder with a memory for names gives what one without it gives, whatever came before and however the bytes are bent."""

from __future__ import annotations

import cbor2
from hypothesis import example, given
from hypothesis import strategies as st

from citynet import wire
from citynet.errors import DecodeError
from citynet.reading import Reading
from citynet.skim import NAMES_MIN, NamesMemory, find_names

NAMES = [f"dev-{k}/level_m" for k in range(3 * NAMES_MIN)]


def payload_of(gateway: str, names: list[str], seq0: int) -> bytes:
    rows = [Reading(*name.split("/"), 1_800_000_000_000_000 + k, float(k)) for k, name in enumerate(names)]
    return wire.encode(wire.Header(gateway, "telemetry", 7, seq0, len(rows), seq0 + len(rows)), rows)


def outcome(payload: bytes, memory: NamesMemory | None) -> object:
    try:
        return wire.decode(payload, wire.CBOR, memory)
    except DecodeError as error:
        return type(error), error.reason, error.where


lists = st.integers(0, len(NAMES) - 1).flatmap(
    lambda first: st.integers(first + 1, len(NAMES)).map(lambda end: NAMES[first:end])
)


@given(st.lists(st.tuples(st.sampled_from(["gw-1", "gw-2"]), lists, st.integers(1, 1 << 40)), min_size=1, max_size=12))
def test_memory_changes_nothing(batches: list[tuple[str, list[str], int]]) -> None:
    memory = NamesMemory()
    for batch in batches:
        payload = payload_of(*batch)
        assert outcome(payload, memory) == outcome(payload, None)


@given(st.data())
def test_bent_bytes_change_nothing(data: st.DataObject) -> None:
    """One payload is learnt; then bytes of it are changed, cut out or doubled."""
    memory = NamesMemory()
    payload = payload_of("gw-1", NAMES, 1)
    outcome(payload, memory)
    start = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(start, min(len(payload), start + 40)))
    bent = payload[:start] + data.draw(st.binary(max_size=8)) + payload[end:]
    assert outcome(bent, memory) == outcome(bent, None)


@given(st.binary(max_size=200))
@example(b"\xbf\x65names\x80\xff")
@example(b"\xa1\x65names")
def test_any_bytes_are_walked_without_harm(noise: bytes) -> None:
    place = find_names(noise)
    assert place is None or place[1] > 0


def test_names_are_cut_out_once_known() -> None:
    memory = NamesMemory()
    first, second = payload_of("gw-1", NAMES, 1), payload_of("gw-1", NAMES, 1_000)
    assert memory.cut(first) is None
    wire.decode(first, wire.CBOR, memory)
    shorter, names = memory.cut(second) or (b"", ())
    assert names == tuple(NAMES)
    assert len(shorter) < len(second) - sum(map(len, NAMES))
    assert cbor2.loads(shorter)["names"] == []
    assert memory.cut(payload_of("gw-2", NAMES, 1)) is None, "another gateway's names are its own"


def test_memory_is_bounded() -> None:
    memory = NamesMemory(bytes_max=2_000)
    payloads = [payload_of(f"gw-{k}", NAMES, 1) for k in range(10)]
    for payload in payloads:
        wire.decode(payload, wire.CBOR, memory)
    remembered = [memory.cut(payload) is not None for payload in payloads]
    assert remembered[-1]
    assert sum(remembered) <= 2_000 // (len(NAMES) * 10)
