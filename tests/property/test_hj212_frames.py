"""Laws of the HJ 212 deframer and parser: any bytes, any cut of the stream; checksums against the simulator's own."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citynet.errors import DecodeError
from citynet_gateway.drivers.hj212.frame import (
    CHECKSUM_CHARS,
    GARBAGE_BYTES_MAX,
    Broken,
    Deframer,
    Frame,
    checksum,
    checksum_modbus,
    encode,
)
from citynet_gateway.drivers.hj212.message import Message, parse, segment, time_text, time_us
from citynet_gateway.drivers.hj212.readings import Station, factors_with, is_data, read
from citynet_sim.protocols import hj212 as sim

DATA_MAX = 1_024
GOLDEN = [
    (b"QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&RtdInterval=30&&", "1C80"),
    (
        b"QN=20160801085857223;ST=23;CN=2011;PW=123456;MN=010000A8900016F000169DC0;Flag=5;"
        b"CP=&&DataTime=20160801085857; LA-Rtd=50.1&&",
        "1E00",
    ),
]  # fmt: skip
STATION = Station("1", "d", None, "hj212", ZoneInfo("Asia/Shanghai"), factors_with({}))

# Bytes that look like the protocol, so that the interesting turns are taken.
SHAPED = st.lists(
    st.sampled_from([b"#", b"##", b"##0010", b"##0000", b"##9999", b"0101", b"\r\n", b"\n", b"A", b"1C80", b"&&", b";"])
    | st.binary(max_size=6)
    | st.binary(max_size=40).map(lambda data: encode(data.replace(b"#", b"").replace(b"\r", b"").replace(b"\n", b"")))
    | st.just(b"x" * (GARBAGE_BYTES_MAX + 3)),
    max_size=12,
).map(b"".join)  # fmt: skip
CLEAN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(
    lambda text: text.replace("##", "").rstrip("#").encode()
)


def pieces(deframer: Deframer) -> list[Frame | Broken]:
    found = []
    while (piece := deframer.next()) is not None:
        found.append(piece)
    return found


def whole(stream: bytes) -> list[Frame | Broken]:
    deframer = Deframer(DATA_MAX)
    deframer.feed(stream)
    rest = [*pieces(deframer), deframer.rest()]
    return [piece for piece in rest if piece is not None]


@pytest.mark.parametrize(("data", "digits"), GOLDEN)
def test_golden_frames(data: bytes, digits: str) -> None:
    assert f"{checksum(data):04X}" == digits == sim.checksum(data)
    (frame,) = whole(encode(data))
    assert frame == Frame(data, digits.encode())
    assert frame.holds("hj212")
    assert not frame.holds("modbus-crc")
    assert encode(data) == sim.frame(data)
    assert sim.Frames().take(encode(data)) == [data]
    assert parse(data).mn == "010000A8900016F000169DC0"


def test_the_checksum_is_not_that_of_modbus() -> None:
    assert f"{checksum_modbus(GOLDEN[0][0]):04X}" == "0759"
    (frame,) = whole(encode(GOLDEN[0][0], "modbus-crc"))
    assert isinstance(frame, Frame)
    assert frame.holds("modbus-crc")
    assert not frame.holds("hj212")


@given(st.binary(max_size=200))
def test_two_implementations_agree_on_the_checksums(data: bytes) -> None:
    assert f"{checksum(data):04X}" == sim.checksum(data)
    assert f"{checksum_modbus(data):04X}" == sim.modbus_checksum(data)


@given(SHAPED, st.lists(st.integers(0, 400), max_size=10))
@settings(max_examples=300)
def test_what_comes_out_does_not_depend_on_the_cut_into_reads(stream: bytes, cuts: list[int]) -> None:
    deframer, found, at = Deframer(DATA_MAX), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        deframer.feed(stream[at:cut])
        at = max(at, cut)
        found += pieces(deframer)
    rest = deframer.rest()
    assert [*found, *([rest] if rest else [])] == whole(stream)


@given(SHAPED)
def test_byte_by_byte_is_the_same_and_memory_is_bounded(stream: bytes) -> None:
    deframer, found = Deframer(DATA_MAX), []
    for position in range(len(stream)):
        deframer.feed(stream[position : position + 1])
        found += pieces(deframer)
        assert len(deframer._buffer) <= 6 + DATA_MAX + CHECKSUM_CHARS
    rest = deframer.rest()
    assert [*found, *([rest] if rest else [])] == whole(stream)


@given(SHAPED, CLEAN, SHAPED, CLEAN)
@settings(max_examples=300)
def test_a_frame_in_order_is_found_whatever_stands_before_it(
    before: bytes, first: bytes, between: bytes, second: bytes
) -> None:
    frames = [
        piece.data for piece in whole(before + encode(first) + between + encode(second)) if isinstance(piece, Frame)
    ]
    assert frames[-1] == second
    assert first in frames


@given(SHAPED)
def test_nothing_disappears(stream: bytes) -> None:
    """Every byte but blanks is in a piece, in order."""
    said = b"".join(piece.raw() if isinstance(piece, Frame) else piece.data for piece in whole(stream))
    blanks = b"\r\n \t\0"
    assert said.translate(None, blanks) == stream.translate(None, blanks)


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda tail: GOLDEN[1][0][:-2] + tail + b"&&"))
@settings(max_examples=300)
def test_the_parser_refuses_or_understands_and_never_does_anything_else(data: bytes) -> None:
    try:
        message = parse(data)
    except DecodeError as error:
        assert error.reason
        assert error.where
        return
    if is_data(message):
        try:
            statements = read(message, STATION, message.value("DataTime"))
        except DecodeError:
            return
        assert any(statement.readings or statement.rejects for statement in statements)


@given(
    st.from_regex(r"[0-9A-F]{1,24}", fullmatch=True),
    st.from_regex(r"[0-9]{4}", fullmatch=True),
    st.lists(
        st.tuples(st.from_regex(r"[A-Za-z0-9]{1,8}", fullmatch=True), st.from_regex(r"[0-9.]{0,8}", fullmatch=True))
    ),
)
def test_what_we_write_is_what_we_read(mn: str, cn: str, items: list[tuple[str, str]]) -> None:
    message = Message(mn, cn, "20160801085857223", "91", "123456", 4, items=tuple(items))
    assert parse(segment(message)) == message
    assert sim.fields(segment(message))["MN"] == mn


@given(st.integers(946_684_800, 4_102_444_800))
def test_local_times_go_both_ways(at_s: int) -> None:
    for zone in (ZoneInfo("Asia/Shanghai"), timezone(timedelta(hours=5, minutes=45)), UTC):
        assert time_us(time_text(at_s * 1_000_000, zone), zone) == at_s * 1_000_000
        assert time_us(time_text(at_s * 1_000_000 + 7_000, zone, milliseconds=True), zone) == at_s * 1_000_000 + 7_000


def test_a_frame_that_was_cut_off_is_told_at_its_end_and_costs_only_itself() -> None:
    deframer = Deframer(DATA_MAX)
    for end in (b"\n", b"\r"):
        deframer.feed(b"##0020abc" + end)
        assert deframer.next() == Broken("cut-short", b"##0020abc")
        assert deframer.next() is None
    good = encode(b"MN=1")
    for cut in (
        b"##0000ABC",
        b"##0004MN=1",
        b"##0004MN=1A",
        b"##0005MN=1",
        b"##0004MN=1ABC#",
        b"##9999",
        b"##",
        b"##00",
    ):
        assert [piece for piece in whole(cut + good) if isinstance(piece, Frame)] == [Frame(b"MN=1", good[-6:-2])], cut
