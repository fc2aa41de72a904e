"""The spool of segment files: append-only, synced in groups, trimmed when the server has acknowledged.

An append only reaches memory. `sync` writes all of a stream's pending frames with one write and one
`fdatasync`, so a frame is either wholly in front of the synced end or not there. Reading never passes the
synced end. Bounds: `SpoolSettings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from citynet.control import Claim, Stream
from citynet.notes import Note
from citynet.reading import Reading
from citynet.runtime import failpoint
from citynet.wire import ALARM, STREAMS, TELEMETRY
from citynet_gateway.spool.files import File, Files, LocalFiles, close_quietly
from citynet_gateway.spool.ledger import Epoch, Segment, Tokens
from citynet_gateway.spool.port import Frame, Run, Span, SpoolFull, SpoolLocked, SpoolSettings
from citynet_gateway.spool.reader import Reader
from citynet_gateway.spool.recovery import Report, quarantine, recover
from citynet_gateway.spool.segment import TOKEN_BYTES, encode_frame
from citynet_gateway.spool.watermark import MARKS_MAX, Mark, WatermarkFile
from citynet_gateway.spool.writer import Writer

EPOCH_BITS = 53  # a JSON number everywhere
WATERMARK = "watermark"
LOCK = "lock"
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

    def newest(self) -> Segment | None:
        return next((epoch.segments[-1] for epoch in reversed(self.epochs) if epoch.segments), None)


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

    def __init__(self, folder: Path, settings: SpoolSettings, epoch: int, files: Files | None = None) -> None:
        self._files = files = files or LocalFiles()
        self._folder = folder
        self._settings = settings
        files.prepare(folder)
        with ExitStack() as undo:
            self._lock = _lock(files, folder)
            undo.callback(close_quietly, self._lock)
            self._watermark = WatermarkFile(files, folder / WATERMARK)
            found = recover(files, folder, self._watermark.load(), repair=True)
            check_epoch(epoch, [old.number for epochs in found.epochs.values() for old in epochs])
            undo.pop_all()
        self._watermark.opening = max(self._watermark.opening, found.opening_last) + 1
        self._epoch = epoch
        self.report: Report = found.report
        self._streams: dict[Stream, _Stream] = {
            stream: self._open_stream(stream, found.epochs[stream], found.tokens[stream]) for stream in STREAMS
        }
        if any(found.epochs.values()):
            with suppress(OSError):
                self.save()  # where the old epochs end, so that the next opening need not look again

    def _open_stream(self, stream: Stream, epochs: list[Epoch], tokens: list[bytes]) -> _Stream:
        live = Epoch(stream, self._watermark.opening, self._epoch, live=True)
        known = Tokens(self._settings.tokens_max, tokens)
        writer = Writer(self._files, self._folder, live, known, self._settings.segment_bytes)
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

    def append(self, stream: Stream, readings: Sequence[Reading], notes: Sequence[Note], token: bytes = b"") -> int:
        state = self._streams[stream]
        writer = state.writer
        frame = Frame(writer.appended + 1, state.live.synced, token, tuple(readings), tuple(notes))
        if not frame.count:
            raise ValueError("a frame holds at least one record")
        data = encode_frame(frame, writer.seed)
        # Room for the next segment's header is kept free, so that a rotation never passes the cap.
        reserve = 64 + TOKEN_BYTES * self._settings.tokens_max
        used, cap = state.stored_bytes + writer.pending_bytes, self._settings.cap(stream)
        if used + len(data) + reserve > cap or writer.pending_bytes + len(data) > self._settings.pending_bytes_max:
            raise SpoolFull(stream, used, cap)
        writer.append(data, frame)
        return frame.last

    def appended(self, stream: Stream) -> int:
        return self._streams[stream].writer.appended

    def synced(self, stream: Stream) -> int:
        return self._streams[stream].live.synced

    def pending(self, stream: Stream) -> int:
        return self._streams[stream].writer.pending_records

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
        """Remove segments that are wholly acknowledged, the watermark first. The newest of a stream stays: it has the tokens.

        Raises:
            OSError: storage refused; what was not removed is tried again at the next acknowledgement.
        """
        doomed = [(state, epoch, segment) for state in self._streams.values() for epoch, segment in _doomed(state)]
        if not doomed:
            return
        self.save()
        failpoint.hit("gateway.after-watermark")
        for state, epoch, segment in doomed:
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
        marks = []
        for stream in (ALARM, TELEMETRY):
            for epoch in self._streams[stream].epochs:
                claimed = max(epoch.claimed, epoch.synced)
                if claimed or epoch.acked:
                    settled = epoch.segments and not epoch.live and epoch.synced == claimed
                    tail_bytes = epoch.segments[-1].size if settled else 0
                    marks.append(Mark(epoch.opening, epoch.number, stream, epoch.acked, claimed, tail_bytes))
        if len(marks) > MARKS_MAX:
            # Only a crash loop of weeks without a link gets here. An acknowledgement outweighs a claim.
            marks.sort(key=lambda mark: (mark.acked > 0, mark.opening))
            marks = marks[-MARKS_MAX:]
        self._watermark.save(marks)

    def close(self) -> None:
        """Give the files back. What was not synced is given up: nobody was told that it is safe."""
        for state in self._streams.values():
            state.writer.close()
        self._watermark.close()
        close_quietly(self._lock)


def check_epoch(epoch: int, known: Sequence[int]) -> None:
    """An epoch is new, or two different records would have one name. ValueError otherwise."""
    if not 0 < epoch < 1 << EPOCH_BITS:
        raise ValueError(f"epoch {epoch} is not a positive number of {EPOCH_BITS} bits")
    if epoch in known:
        raise ValueError(f"epoch {epoch} was used before")


def _lock(files: Files, folder: Path) -> File:
    try:
        return files.lock(folder / LOCK)
    except BlockingIOError:
        raise SpoolLocked(f"{folder}: another gateway process has this spool open") from None


def _doomed(state: _Stream) -> list[tuple[Epoch, Segment]]:
    newest = state.newest()
    found = []
    for epoch in state.epochs:
        for segment in epoch.segments:
            if segment is newest or segment.last > epoch.acked:
                break
            found.append((epoch, segment))
    return found
