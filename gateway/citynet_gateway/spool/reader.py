"""Reading a stream back in order, one segment at a time.

What is missing or broken becomes a loss with its exact range.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from citynet.notes import LossNote, Note, RawNote
from citynet.reading import Reading
from citynet_gateway.spool.files import Files
from citynet_gateway.spool.ledger import Epoch, Segment
from citynet_gateway.spool.port import Frame, Run
from citynet_gateway.spool.segment import Raw, SegmentName, decode_header, scan, seed_of

CHUNK_BYTES = 128 << 10
READ_FAILURES_MAX = 5  # then the rest of the segment counts as damaged: a dead sector must not stop the stream
SERVER_REGRESSION = "server_regression"
SPOOL_REGRESSION = "spool_regression"
SEGMENT_DAMAGED = "segment_damaged"
SEGMENT_MISSING = "segment_missing"
SPOOL_FULL = "spool_full"
SPOOL_AGE = "spool_age"
GIVEN_UP = (SPOOL_FULL, SPOOL_AGE)  # the watermark names them by their place
_READING_BYTES = 48  # estimates of the size in an envelope, to bound it
_NOTE_BYTES = 160


class Reader:
    """A position in one stream. Reading on is sequential; going back costs one scan of a segment.

    Memory: `CHUNK_BYTES` of a segment, or one frame where that is larger.
    """

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._name: SegmentName | None = None
        self._taken = 0  # offset in the segment behind what was taken from the file and scanned
        self._chunk_at = 0  # offset of the bytes being scanned
        self._frames: Iterator[Raw] = iter(())
        self._frame: Frame | None = None  # the latest one; the next read may begin inside it
        self._failures = 0
        self.lost_records = 0

    def read(self, epoch: Epoch, seq: int, records_max: int, bytes_max: int) -> Run | None:
        """Records from `seq` on: at least one, at most `records_max` (a loss counts as one), of about `bytes_max` bytes.

        Raises:
            OSError: the segment cannot be read now. After `READ_FAILURES_MAX` times its rest is declared lost
                instead.
        """
        run = RunBuilder(epoch.number, seq, records_max, bytes_max)
        while not run.full:
            piece = self._piece(epoch, run.next_seq)
            if piece is None or not run.take(piece):
                break
        return run.build()

    def _piece(self, epoch: Epoch, seq: int) -> Frame | LossNote | None:
        """What stands at `seq`: the frame that covers it, or the loss that begins there."""
        if seq > epoch.last:
            return None
        if (drop := epoch.dropped_at(seq)) is not None:
            return LossNote(seq, drop.last, drop.reason)
        at = bisect_right(epoch.segments, seq, key=lambda segment: segment.name.first) - 1
        if at < 0:
            end = epoch.segments[0].name.first - 1 if epoch.segments else epoch.last
            end = min([end, *(drop.first - 1 for drop in epoch.drops if drop.first > seq)])
            if seq <= epoch.acked:  # acknowledged and removed here; the server forgot it
                return LossNote(seq, min(end, epoch.acked), SERVER_REGRESSION)
            return LossNote(seq, end, SEGMENT_MISSING if epoch.segments else SPOOL_REGRESSION)
        segment = epoch.segments[at]
        if seq > segment.last:
            return LossNote(seq, epoch.last, SPOOL_REGRESSION)
        return self._in_segment(segment, seq)

    def _in_segment(self, segment: Segment, seq: int) -> Frame | LossNote:
        frame = self._seek(segment, seq)
        if frame is not None and frame.seq0 <= seq:
            return frame
        end = segment.last if frame is None else frame.seq0 - 1
        segment.damaged = True
        self.lost_records += end - seq + 1
        return LossNote(seq, end, SEGMENT_DAMAGED)

    def _seek(self, segment: Segment, seq: int) -> Frame | None:
        """The first frame of the segment that ends at or behind `seq`; None if there is none."""
        if self._name != segment.name or self._frame is None or seq < self._frame.seq0:
            self._rewind(segment)
        frame = self._frame
        while frame is None or frame.last < seq:
            raw = next(self._frames, None)
            if raw is None:
                if self._taken >= segment.size:
                    return None
                self._load(segment)
                continue
            if self._taken < segment.size:  # a part of it, or it has grown since
                self._taken = self._chunk_at + raw.end
            frame = raw.frame()
            if frame.last > segment.last:
                return None
            self._frame = frame
        return frame

    def _rewind(self, segment: Segment) -> None:
        self._name, self._frame, self._frames = segment.name, None, iter(())
        self._taken = self._chunk_at = 0

    def _load(self, segment: Segment) -> None:
        """Take the next bytes of the segment: enough for a whole frame, to the segment's end where nothing but damage follows.

        The segment ends with a whole frame: only synced bytes count.
        """
        seed, size_max = seed_of(segment.name), CHUNK_BYTES
        while True:
            data = self._bytes(segment, min(size_max, segment.size - self._taken))
            is_all = len(data) < size_max or self._taken + len(data) >= segment.size
            start = decode_header(data).end if self._taken == 0 else 0
            frames = scan(data, start, seed, is_all=is_all)
            first = next(frames, None)
            if first is not None or is_all:
                break
            size_max *= 4
        self._chunk_at = self._taken
        self._frames = chain((first,), frames) if first is not None else frames
        if is_all:
            self._taken = segment.size

    def _bytes(self, segment: Segment, size: int) -> bytes:
        try:
            data = self._files.read(self._folder / str(segment.name), self._taken, size)
        except FileNotFoundError:
            data = b""
        except OSError:
            self._failures += 1
            if self._failures < READ_FAILURES_MAX:
                raise
            data = b""
        self._failures = 0
        return data


class RunBuilder:
    """Collects frames and losses into one run within its bounds."""

    def __init__(self, epoch: int, seq0: int, records_max: int, bytes_max: int) -> None:
        self._epoch = epoch
        self._seq0 = seq0
        self._room_records = records_max
        self._room_bytes = bytes_max
        self._readings: list[Reading] = []
        self._notes: list[tuple[int, Note]] = []
        self.next_seq = seq0

    @property
    def full(self) -> bool:
        return self._room_records <= 0 or self._room_bytes <= 0

    def take(self, piece: Frame | LossNote) -> bool:
        """Add what fits of a piece that begins at or before `next_seq`; False if nothing of it fitted."""
        before = self.next_seq
        if isinstance(piece, LossNote):
            self._note(piece)
            return True
        offset = self.next_seq - piece.seq0
        fits = max(1, self._room_bytes // _READING_BYTES)
        chosen = piece.readings[offset : offset + min(self._room_records, fits)]
        self._readings.extend(chosen)
        self.next_seq += len(chosen)
        self._room_records -= len(chosen)
        self._room_bytes -= len(chosen) * _READING_BYTES
        offset = self.next_seq - piece.seq0 - len(piece.readings)
        if offset >= 0:
            for note in piece.notes[offset:]:
                if self.full or (self.next_seq > self._seq0 and _bytes(note) > self._room_bytes):
                    break
                self._note(note)
        return self.next_seq > before

    def _note(self, note: Note) -> None:
        self._notes.append((self.next_seq - self._seq0, note))
        self.next_seq += note.span
        self._room_records -= 1
        self._room_bytes -= _bytes(note)

    def build(self) -> Run | None:
        count = self.next_seq - self._seq0
        return Run(self._epoch, self._seq0, count, self._readings, self._notes) if count else None


def _bytes(note: Note) -> int:
    return _NOTE_BYTES + (len(note.payload) + len(note.topic) + len(note.reason) if isinstance(note, RawNote) else 0)
