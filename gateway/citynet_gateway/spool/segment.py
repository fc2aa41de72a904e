"""The bytes of a segment: pure functions between frames and bytes.

A segment file is a header and frames behind it. A frame is a two-byte mark, length, CRC-32C and a MessagePack
body::

    C7 9E | length u32 le | crc u32 le | [seq0, synced, token, [[device, metric, time_us, value, quality]...],
    [note...]]

The mark lets a scan find the next frame after damage. The CRC covers length and body and is seeded with epoch
and stream, so that a block that the storage put into the wrong file is not taken for ours. The file's name
repeats opening, epoch, stream and first number, so a broken header costs nothing but the source tokens in
it::

    telemetry-00000007-001f3a…-0000000000000001-0.seg      stream - opening - epoch (hex) - first seq -
    attempt
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import google_crc32c
import msgspec

from citynet.control import Stream
from citynet.notes import ClockNote, EventNote, Note, RawNote
from citynet.reading import Reading
from citynet.wire import ALARM, SEQ_MAX, STREAMS, TELEMETRY
from citynet_gateway.spool.port import RECORDS_MAX, Frame

SEGMENT_MAGIC = b"CNSEG\x02\r\n"
_MAGIC_1 = b"CNSEG\x01\r\n"  # the same without the time
TOKEN_BYTES = 8
FRAME_BODY_BYTES_MAX = 2 << 20
_MARK = b"\xc7\x9e"
_FRAME = struct.Struct("<2sII")  # mark, length, crc
_HEADER = struct.Struct("<8sBQQI")  # magic, stream, epoch, first, number of tokens; tokens, time and their crc follow
_TIME = struct.Struct("<I")
FRAME_HEAD_BYTES = _FRAME.size
_NAME = re.compile(r"(telemetry|alarm)-(\d{8,12})-([0-9a-f]{14,16})-(\d{16,19})-(\d{1,5})\.seg")

_Group = tuple[
    str, int, int, list[tuple[str, float]]
]  # device, time_us, quality, (metric, value) of consecutive readings
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, int, bytes, list[_Group], list[list[object]]])
_peek = msgspec.msgpack.Decoder(
    tuple[int, int, bytes, list[tuple[str, int, int, list[msgspec.Raw]]], list[msgspec.Raw]]
)


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What a segment's file name says; sorts by age inside a stream."""

    stream: Stream
    opening: int
    epoch: int
    first: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.stream}-{self.opening:08d}-{self.epoch:014x}-{self.first:016d}-{self.attempt}.seg"


def parse_name(name: str) -> SegmentName | None:
    """The parts of a segment's name, None for any other file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    stream: Stream = ALARM if match[1] == ALARM else TELEMETRY
    found = SegmentName(stream, int(match[2]), int(match[3], 16), int(match[4]), int(match[5]))
    return found if 1 <= found.first <= SEQ_MAX and 1 <= found.epoch <= SEQ_MAX else None


def seed_of(name: SegmentName) -> int:
    """Where the CRC of this segment's frames begins."""
    return int(google_crc32c.value(struct.pack("<BQ", STREAMS.index(name.stream), name.epoch)))


@dataclass(frozen=True, slots=True)
class Header:
    """`end`: where the frames begin, 0 for a broken header (the scan finds the first frame by its mark). `begun_s`: when the
    segment was begun, on the spool's own clock; 0 where that is not known."""

    end: int = 0
    tokens: tuple[bytes, ...] = ()
    begun_s: int = 0


def encode_header(name: SegmentName, tokens: Sequence[bytes], begun_s: int = 0) -> bytes:
    """Header bytes; `tokens` (of `TOKEN_BYTES` each, oldest first) are those still needed when older segments are gone."""
    head = _HEADER.pack(SEGMENT_MAGIC, STREAMS.index(name.stream), name.epoch, name.first, len(tokens))
    body = b"".join((head, *tokens, _TIME.pack(begun_s)))
    return body + struct.pack("<I", google_crc32c.value(body))


def decode_header(data: bytes) -> Header:
    """The header at the beginning of `data`."""
    if len(data) < _HEADER.size:
        return Header()
    magic, _, _, _, count = _HEADER.unpack_from(data)
    tokens_end = _HEADER.size + count * TOKEN_BYTES
    end = tokens_end + (_TIME.size if magic == SEGMENT_MAGIC else 0)
    if magic not in (SEGMENT_MAGIC, _MAGIC_1) or len(data) < end + 4:
        return Header()
    if struct.unpack_from("<I", data, end)[0] != google_crc32c.value(data[:end]):
        return Header()
    tokens = tuple(data[at : at + TOKEN_BYTES] for at in range(_HEADER.size, tokens_end, TOKEN_BYTES))
    return Header(end + 4, tokens, _TIME.unpack_from(data, tokens_end)[0] if magic == SEGMENT_MAGIC else 0)


def encode_frame(frame: Frame, seed: int) -> bytes:
    """Bytes of a frame. ValueError if it is larger than a frame may be."""
    body = _encoder.encode(
        (frame.seq0, frame.synced, frame.token, _groups(frame.readings), [_note_out(note) for note in frame.notes])
    )
    if len(body) > FRAME_BODY_BYTES_MAX or frame.count > RECORDS_MAX:
        raise ValueError(f"a frame of {frame.count} records in {len(body)} bytes is too large")
    return _FRAME.pack(_MARK, len(body), _crc(seed, len(body), body)) + body


@dataclass(frozen=True, slots=True)
class Raw:
    """A whole frame's body and where it lies; `end` is the offset behind it."""

    body: bytes
    start: int
    end: int

    def frame(self) -> Frame:
        """The records. Only ever called on a body whose CRC held, so a failure would be a bug of the encoder."""
        seq0, synced, token, groups, notes = _decoder.decode(self.body)
        return Frame(seq0, synced, token, _readings(groups), tuple(_note_in(note) for note in notes))

    def outline(self) -> tuple[int, int, int, bytes]:
        """(seq0, last, synced, token) without building the records."""
        seq0, synced, token, groups, notes = _peek.decode(self.body)
        return seq0, seq0 + sum(len(group[3]) for group in groups) + len(notes) - 1, synced, token


def scan(data: bytes, start: int, seed: int, *, is_all: bool = True) -> Iterator[Raw]:
    """Every whole frame of `data` from offset `start` on; damage between frames is stepped over.

    Each yielded frame's mark, length and CRC hold. The caller sees damage as a jump in the sequence numbers. Where the file
    goes on behind `data` (not `is_all`), the scan stops at what may be a frame that is cut off.
    """
    at = start
    while True:
        raw = _frame_at(data, at, seed)
        if raw is not None:
            yield raw
            at = raw.end
            continue
        if not is_all and _may_go_on(data, at):
            return
        at = data.find(_MARK, at + 1)
        if at < 0:
            return


def _may_go_on(data: bytes, at: int) -> bool:
    """Whether a frame that begins at `at` could end behind `data`."""
    if at + FRAME_HEAD_BYTES > len(data):
        return True
    mark, length, _ = _FRAME.unpack_from(data, at)
    return bool(mark == _MARK and length <= FRAME_BODY_BYTES_MAX and at + FRAME_HEAD_BYTES + length > len(data))


def _frame_at(data: bytes, at: int, seed: int) -> Raw | None:
    if at + FRAME_HEAD_BYTES > len(data):
        return None
    mark, length, crc = _FRAME.unpack_from(data, at)
    begin = at + FRAME_HEAD_BYTES
    if mark != _MARK or length > FRAME_BODY_BYTES_MAX or begin + length > len(data):
        return None
    body = data[begin : begin + length]
    return Raw(body, at, begin + length) if crc == _crc(seed, length, body) else None


def _crc(seed: int, length: int, body: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.extend(seed, length.to_bytes(4, "little")), body))


def _groups(readings: Sequence[Reading]) -> list[_Group]:
    """Readings of one message mostly share device, time and quality; said once, a spool is half as large."""
    groups: list[_Group] = []
    key: tuple[str, int, int] | None = None
    for item in readings:
        if key != (item.device, item.time_us, item.quality):
            key = (item.device, item.time_us, item.quality)
            groups.append((*key, []))
        groups[-1][3].append((item.metric, item.value))
    return groups


def _readings(groups: Sequence[_Group]) -> tuple[Reading, ...]:
    return tuple(
        Reading(device, metric, time_us, value, quality)
        for device, time_us, quality, items in groups
        for metric, value in items
    )


def _note_out(note: Note) -> list[object]:
    if isinstance(note, RawNote):
        return ["raw", note.topic, note.payload, note.reason]
    if isinstance(note, EventNote):
        return ["event", note.device, note.code, note.text, note.time_us]
    if isinstance(note, ClockNote):
        return ["clock", note.boot, note.offset_us]
    raise ValueError("a loss is declared by the spool itself, it cannot be appended")


_RAW = tuple[str, bytes, str]
_EVENT = tuple[str, str, str, int]
_CLOCK = tuple[str, int]


def _note_in(note: list[object]) -> Note:
    kind, rest = note[0], note[1:]
    if kind == "raw":
        return RawNote(*msgspec.convert(rest, _RAW))
    if kind == "event":
        return EventNote(*msgspec.convert(rest, _EVENT))
    return ClockNote(*msgspec.convert(rest, _CLOCK))
