"""The spool of segment files: append-only, synced in groups, trimmed when the server has acknowledged.

An append only reaches memory. `sync` writes all of a stream's pending frames with one write and one
`fdatasync`, so a frame is either wholly in front of the synced end or not there. Reading never passes the
synced end. Bounds: `SpoolSettings`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

import msgspec

from citynet.control import Claim, Stream
from citynet.notes import Note
from citynet.reading import Reading
from citynet.runtime import failpoint
from citynet.wire import ALARM, STREAMS, TELEMETRY
from citynet_gateway.spool.files import File, Files, LocalFiles, close_quietly
from citynet_gateway.spool.ledger import Epoch, Segment, Tokens
from citynet_gateway.spool.port import Frame, Run, Span, SpoolFull, SpoolLocked, SpoolSettings
from citynet_gateway.spool.reader import GIVEN_UP, SPOOL_AGE, SPOOL_FULL, Reader
from citynet_gateway.spool.recovery import Report, quarantine, recover
from citynet_gateway.spool.segment import TOKEN_BYTES, decode_header, encode_frame
from citynet_gateway.spool.watermark import DROPS_MAX, MARKS_MAX, Mark, WatermarkFile
from citynet_gateway.spool.writer import Writer

EPOCH_BITS = 53  # a JSON number everywhere
WATERMARK = "watermark"
LOCK = "lock"
HEADER_BYTES = 64  # of a segment, without its tokens; a little more
CLAIMS_MAX = 512  # epochs of one stream in a status; more means a crash loop, whose older epochs go first anyway


class _Stream:
    """One stream: its epochs (oldest first, the live one last), tokens, writer and reader."""

    def __init__(self, epochs: list[Epoch], tokens: Tokens, writer: Writer, reader: Reader) -> None:
        self.epochs = epochs
        self.tokens = tokens
        self.writer = writer
        self.reader = reader
        self.stored_bytes = sum(segment.size for epoch in epochs for segment in epoch.segments)

    @property
    def live(self) -> Epoch:
        return self.epochs[-1]

    def epoch(self, number: int) -> Epoch | None:
        return next((epoch for epoch in reversed(self.epochs) if epoch.number == number), None)

    def with_tokens(self) -> list[Segment]:
        """The segments that hold the tokens: the newest one; where a power cut took its header, those before it as well."""
        found: list[Segment] = []
        for segment in (segment for epoch in reversed(self.epochs) for segment in reversed(epoch.segments)):
            found.append(segment)
            if not segment.headless:
                break
        return found


class SegmentSpool:
    """`Spool` on segment files in one folder. One process at a time; every method from one thread.

    Args:
        folder: made if absent.
        epoch: random, below 2**53 and above 0; must be new at every opening (`citynet_gateway.service` draws
            it).

    Raises:
        SpoolLocked: another process has it open.
        OSError: the folder cannot be made, listed or locked. Damage inside it never stops the opening.
    """

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        epoch: int,
        files: Files | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files = files or LocalFiles()
        self._folder = folder
        self._settings = settings
        files.prepare(folder)
        with ExitStack() as undo:
            self._lock = take_lock(files, folder)
            undo.callback(close_quietly, self._lock)
            self._watermark = WatermarkFile(files, folder / WATERMARK)
            found = recover(files, folder, self._watermark.load(), repair=True)
            check_epoch(epoch, [old.number for epochs in found.epochs.values() for old in epochs])
            undo.pop_all()
        self._watermark.opening = max(self._watermark.opening, found.opening_last) + 1
        self._epoch = epoch
        self._given_up: Counter[str] = Counter()
        self._monotonic_s = monotonic_s
        begun_s = [segment.begun_s or 0 for old in found.epochs.values() for item in old for segment in item.segments]
        self._clock_from_s = max(self._watermark.clock_s, *begun_s, 1) - monotonic_s()
        self.report: Report = found.report
        self._streams: dict[Stream, _Stream] = {
            stream: self._open_stream(stream, found.epochs[stream], found.tokens[stream]) for stream in STREAMS
        }
        with suppress(OSError):
            self.save()  # where the old epochs end, so that the next opening need not look again
            self._watermark.reserve()
            self.trim()  # what a power cut has brought back

    def _open_stream(self, stream: Stream, epochs: list[Epoch], tokens: list[bytes]) -> _Stream:
        live = Epoch(stream, self._watermark.opening, self._epoch, live=True)
        known = Tokens(self._settings.tokens_max, tokens)
        writer = Writer(self._files, self._folder, live, known, self._settings.segment_bytes, self._clock_s)
        return _Stream([*epochs, live], known, writer, Reader(self._files, self._folder))

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def used_bytes(self) -> int:
        """Bytes of all segments and of what is pending."""
        return sum(stream.stored_bytes + stream.writer.pending_bytes for stream in self._streams.values())

    @property
    def lost_records(self) -> int:
        """Records found damaged while reading since the opening."""
        return sum(stream.reader.lost_records for stream in self._streams.values())

    @property
    def poisoned(self) -> int:
        """Segments given up after a failed write or sync since the opening."""
        return sum(stream.writer.poisoned for stream in self._streams.values())

    def _clock_s(self) -> int:
        return int(self._clock_from_s + self._monotonic_s())

    def append(
        self,
        stream: Stream,
        readings: Sequence[Reading],
        notes: Sequence[Note],
        token: bytes = b"",
        *,
        waits: bool = True,
    ) -> int:
        state = self._streams[stream]
        writer = state.writer
        frame = Frame(writer.appended + 1, state.live.synced, token, tuple(readings), tuple(notes))
        if not frame.count:
            raise ValueError("a frame holds at least one record")
        data = encode_frame(frame, writer.seed)
        if writer.pending_bytes + len(data) > self._settings.pending_bytes_max:
            raise SpoolFull(stream, writer.pending_bytes, self._settings.pending_bytes_max)
        while not self._fits(stream, len(data), waits=waits):
            if waits or not self.give_way():
                raise SpoolFull(stream, self._used(stream), self._settings.cap(stream))
        writer.append(data, frame)
        return frame.last

    def _used(self, stream: Stream) -> int:
        return self._streams[stream].stored_bytes + self._streams[stream].writer.pending_bytes

    def _fits(self, stream: Stream, size: int, *, waits: bool) -> bool:
        # Room for the next segment's header (both streams') is kept free, so that a rotation never passes the cap.
        header = HEADER_BYTES + TOKEN_BYTES * self._settings.tokens_max
        own = self._used(stream) + size + header <= self._settings.room(stream, waits=waits)
        return own and self.used_bytes + size + 2 * header <= self._settings.bytes_max

    def give_way(self) -> bool:
        try:
            return self._give_up(SPOOL_FULL)
        except OSError:
            return False

    def expire(self) -> None:
        age_max_s = self._settings.age_max_s
        while age_max_s:
            first_two = list(islice((item for epoch in self._streams[TELEMETRY].epochs for item in epoch.segments), 2))
            # All of a segment is older than the beginning of the next one.
            if len(first_two) < 2 or self._begun_s(first_two[1]) + age_max_s > self._clock_s():
                return
            self._give_up(SPOOL_AGE)

    @property
    def given_up(self) -> Mapping[str, int]:
        return self._given_up

    def _oldest(self) -> tuple[Epoch, Segment] | None:
        """The oldest telemetry segment. What has the tokens stays; it may be open, too."""
        state = self._streams[TELEMETRY]
        epoch = next((epoch for epoch in state.epochs if epoch.segments), None)
        if epoch is None or any(segment is epoch.segments[0] for segment in state.with_tokens()):
            return None
        return epoch, epoch.segments[0]

    def _begun_s(self, segment: Segment) -> int:
        """When a segment was begun, on the spool's clock. One that does not say counts as new."""
        if segment.begun_s is None:
            size = HEADER_BYTES + TOKEN_BYTES * self._settings.tokens_max
            found = decode_header(self._files.read(self._folder / str(segment.name), 0, size)).begun_s
            segment.begun_s = found or self._clock_s()
        return segment.begun_s

    def _give_up(self, reason: str) -> bool:
        """Remove the oldest telemetry segment, the loss of what it still owes written first. OSError: not (wholly) done."""
        oldest = self._oldest()
        if oldest is None:
            return False
        epoch, segment = oldest
        first, before = max(epoch.released + 1, segment.name.first), list(epoch.drops)
        if first <= segment.last:
            epoch.drop(first, segment.last, reason)
        try:
            self.save()
        except OSError:
            epoch.drops = before
            raise
        failpoint.hit("gateway.after-loss")
        self._given_up[reason] += max(0, segment.last - first + 1)
        self._remove(self._streams[TELEMETRY], epoch, segment)
        return True

    def appended(self, stream: Stream) -> int:
        return self._streams[stream].writer.appended

    def synced(self, stream: Stream) -> int:
        return self._streams[stream].live.synced

    def pending(self, stream: Stream) -> int:
        return self._streams[stream].writer.pending_records

    def pending_bytes(self, stream: Stream) -> int:
        return self._streams[stream].writer.pending_bytes

    def sync(self, stream: Stream) -> int:
        state = self._streams[stream]
        state.stored_bytes += state.writer.sync()
        return state.live.synced

    def knows(self, stream: Stream, token: bytes) -> bool:
        return token in self._streams[stream].tokens

    def spans(self, stream: Stream) -> list[Span]:
        return [epoch.span() for epoch in self._streams[stream].epochs]

    def read(self, stream: Stream, epoch: int, seq: int, records_max: int, bytes_max: int) -> Run | None:
        state = self._streams[stream]
        found = state.epoch(epoch)
        return state.reader.read(found, seq, records_max, bytes_max) if found is not None else None

    def ack(self, stream: Stream, epoch: int, seq: int) -> None:
        found = self._streams[stream].epoch(epoch)
        if found is None or seq > found.last:
            raise ValueError(f"{stream} {epoch}: {seq} was never accepted")
        if seq > found.acked:
            found.acked = seq
            self.trim()

    def trim(self) -> None:
        """Remove segments that are wholly acknowledged, the watermark first. What has a stream's tokens stays.

        Raises:
            OSError: storage refused; what was not removed is tried again at the next acknowledgement.
        """
        doomed = [(state, epoch, segment) for state in self._streams.values() for epoch, segment in _doomed(state)]
        if not doomed:
            return
        self.save()
        failpoint.hit("gateway.after-watermark")
        for state, epoch, segment in doomed:
            self._remove(state, epoch, segment)

    def _remove(self, state: _Stream, epoch: Epoch, segment: Segment) -> None:
        if segment.damaged:
            quarantine(self._files, self._folder, segment.name)
        else:
            self._files.unlink(self._folder / str(segment.name))
        epoch.segments.remove(segment)
        state.stored_bytes -= segment.size
        failpoint.hit("gateway.mid-unlink")

    def _forget(self, state: _Stream) -> None:
        """Of the epochs that are done with, only the last ones stay in the books."""
        finished = [epoch for epoch in state.epochs if epoch.finished]
        for epoch in finished[: max(0, len(finished) - self._settings.finished_epochs_max)]:
            state.epochs.remove(epoch)

    def claims(self) -> list[Claim]:
        return [
            Claim(epoch.number, epoch.stream, epoch.last, epoch.acked)
            for state in self._streams.values()
            for epoch in state.epochs[-CLAIMS_MAX:]
            if epoch.live or epoch.last > 0
        ]

    def save(self) -> None:
        for state in self._streams.values():
            self._forget(state)
        self._watermark.clock_s = self._clock_s()
        marks = [_mark(epoch) for stream in (ALARM, TELEMETRY) for epoch in self._streams[stream].epochs]
        marks = [mark for mark in marks if mark.claimed or mark.acked]
        if len(marks) > MARKS_MAX:
            # Only a crash loop of weeks without a link gets here. An acknowledgement outweighs a claim.
            marks.sort(key=lambda mark: (mark.acked > 0, mark.opening))
            marks = marks[-MARKS_MAX:]
        room = DROPS_MAX
        for at in reversed(
            range(len(marks))
        ):  # without its reason an old loss is still one: as a segment that is missing
            room -= len(marks[at].drops)
            if room < 0:
                marks[at] = msgspec.structs.replace(marks[at], drops=())
        self._watermark.save(marks)

    def close(self) -> None:
        """Give the files back. What was not synced is given up: nobody was told that it is safe."""
        for state in self._streams.values():
            state.writer.close()
        self._watermark.close()
        close_quietly(self._lock)


def _mark(epoch: Epoch) -> Mark:
    claimed = max(epoch.claimed, epoch.synced)
    settled = epoch.segments and not epoch.live and epoch.synced == claimed
    tail_bytes = epoch.segments[-1].size if settled else 0
    epoch.drops = [drop for drop in epoch.drops if drop.last > epoch.acked]
    drops = tuple((drop.first, drop.last, GIVEN_UP.index(drop.reason)) for drop in epoch.drops)
    return Mark(epoch.opening, epoch.number, epoch.stream, epoch.acked, claimed, tail_bytes, drops)


def check_epoch(epoch: int, known: Sequence[int]) -> None:
    """An epoch is new, or two different records would have one name. ValueError otherwise."""
    if not 0 < epoch < 1 << EPOCH_BITS:
        raise ValueError(f"epoch {epoch} is not a positive number of {EPOCH_BITS} bits")
    if epoch in known:
        raise ValueError(f"epoch {epoch} was used before")


def take_lock(files: Files, folder: Path) -> File:
    """The lock of a spool folder. SpoolLocked if another process has it."""
    try:
        return files.lock(folder / LOCK)
    except BlockingIOError:
        raise SpoolLocked(f"{folder}: another gateway process has this spool open") from None


def _doomed(state: _Stream) -> list[tuple[Epoch, Segment]]:
    kept = state.with_tokens()
    found = []
    for epoch in state.epochs:
        for segment in epoch.segments:
            if segment.last > epoch.released or any(segment is item for item in kept):
                break
            found.append((epoch, segment))
    return found
