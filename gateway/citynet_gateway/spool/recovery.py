"""Opening a spool after whatever happened to it: find the segments, cut torn tails, learn what is missing. It always starts.

Only the last segment of the newest epoch is scanned; of the others the next one's name tells the range, or the watermark where
the epoch was settled by an earlier opening, so that opening a full spool takes no longer than opening an empty one. Damage in
those is found, and declared, when they are read.
"""

from __future__ import annotations

import contextlib
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from citynet.control import Stream
from citynet.wire import STREAMS
from citynet_gateway.spool.files import File, Files, close_quietly, write_all
from citynet_gateway.spool.ledger import Drop, Epoch, Segment
from citynet_gateway.spool.reader import GIVEN_UP
from citynet_gateway.spool.segment import TOKEN_BYTES, SegmentName, decode_header, parse_name, scan, seed_of
from citynet_gateway.spool.watermark import Mark

SEGMENT_READ_BYTES_MAX = 64 << 20
ATTEMPTS_MAX = 3
TOKENS_MAX = 16_384  # remembered while opening; the spool keeps the last ones of them
QUARANTINE = "quarantine"
QUARANTINED_MAX = 4  # damaged segments kept for a person to look at; older ones are removed


@dataclass(slots=True)
class Report:
    """What opening found: counts for metrics, log and `citynet gateway spool verify`."""

    segments: int = 0
    torn_tails: int = 0
    torn_bytes: int = 0
    damaged_segments: int = 0
    unreadable_segments: int = 0
    regression_records: int = 0


@dataclass(slots=True)
class Found:
    """The result: epochs per stream, oldest first, and the source tokens still needed."""

    epochs: dict[Stream, list[Epoch]]
    tokens: dict[Stream, list[bytes]]
    opening_last: int
    report: Report


@dataclass(slots=True)
class _Scan:
    """Frames of one segment: the last sequence number, where the last whole frame ends, the tokens.

    Up to `safe_end` everything is known to have been synced; `doubtful` are the bytes from there to `end`.
    """

    last: int
    end: int
    header_end: int
    tokens: deque[bytes]
    safe_end: int = 0
    doubtful: bytes = b""


class _Outlines:
    """What the frames of a segment say of themselves: first and last number, end, token. As arrays, for a segment has many."""

    def __init__(self, data: bytes, start: int, seed: int) -> None:
        self._numbers = array("q")
        self._tokens = bytearray()
        self.synced_max = 0
        for raw in scan(data, start, seed):
            seq0, last, synced, token = raw.outline()
            self._numbers.extend((seq0, last, raw.end, len(token)))
            self._tokens += token.ljust(TOKEN_BYTES, b"\0")
            self.synced_max = max(self.synced_max, synced)

    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]:
        for number in range(len(self._numbers) // 4):
            seq0, last, end, token_bytes = self._numbers[4 * number : 4 * number + 4]
            at = TOKEN_BYTES * number
            yield seq0, last, end, bytes(self._tokens[at : at + token_bytes])


def recover(files: Files, folder: Path, marks: Sequence[Mark], *, repair: bool) -> Found:
    """Read the folder. With `repair` torn tails are cut, leftovers removed and what counts is synced; else nothing is written.

    Raises:
        OSError: the folder itself cannot be listed. A single file never stops it.
    """
    report = Report()
    epochs = _from_marks(marks)
    names = sorted(name for name in map(parse_name, files.names(folder)) if name is not None)
    for name in names:
        key = (name.stream, name.opening, name.epoch)
        epoch = epochs.setdefault(key, Epoch(name.stream, name.opening, name.epoch, live=False))
        epoch.segments.append(Segment(name, _size(files, folder / str(name)), 0))
    tokens: dict[Stream, list[bytes]] = {stream: [] for stream in STREAMS}
    ordered = [epochs[key] for key in sorted(epochs, key=lambda key: key[1])]
    complete: set[Stream] = set()  # streams whose tokens are known
    for epoch in reversed(ordered):
        opener = _Opener(files, folder, report, repair)
        if epoch.stream not in complete or not opener.is_settled(epoch):
            found = opener.open(epoch)
            tokens[epoch.stream] = [*found, *tokens[epoch.stream]][-TOKENS_MAX:]
            if opener.has_header:  # it repeats those of the segments before it
                complete.add(epoch.stream)
        _book_regression(epoch, report)
        report.segments += len(epoch.segments)
    if repair and not _listed(files, folder):
        tokens = {stream: [] for stream in STREAMS}
    by_stream = {stream: [epoch for epoch in ordered if epoch.stream == stream] for stream in STREAMS}
    return Found(by_stream, tokens, max((epoch.opening for epoch in ordered), default=0), report)


def _from_marks(marks: Sequence[Mark]) -> dict[tuple[Stream, int, int], Epoch]:
    return {
        (mark.stream, mark.opening, mark.epoch): Epoch(
            mark.stream,
            mark.opening,
            mark.epoch,
            live=False,
            acked=mark.acked,
            claimed=mark.claimed,
            tail_bytes=mark.tail_bytes,
            drops=[Drop(first, last, GIVEN_UP[code]) for first, last, code in mark.drops if code < len(GIVEN_UP)],
        )
        for mark in marks
        if mark.stream in STREAMS
    }


def _listed(files: Files, folder: Path) -> bool:
    """Make the directory entries of what was found durable. If that fails, no token may count: better twice than never."""
    for _ in range(ATTEMPTS_MAX):
        with contextlib.suppress(OSError):
            files.sync_folder(folder)
            return True
    return False


def _book_regression(epoch: Epoch, report: Report) -> None:
    """Count what was claimed and is not here: lost below us (a lying card, a deleted file).

    The reader declares it as the epoch's tail.
    """
    known = max(epoch.synced, epoch.acked, *(drop.last for drop in epoch.drops), 0)
    report.regression_records += max(0, epoch.claimed - known)


def _size(files: Files, path: Path) -> int:
    try:
        return files.size(path)
    except OSError:
        return 0


class _Opener:
    """Settles the segments of one epoch."""

    def __init__(self, files: Files, folder: Path, report: Report, repair: bool) -> None:
        self._files = files
        self._folder = folder
        self._report = report
        self._repair = repair
        self.has_header = False  # whether the tokens that `open` gave are complete

    def is_settled(self, epoch: Epoch) -> bool:
        """Whether an earlier opening knew where the epoch ends, and its last segment is still as it was then."""
        segments = epoch.segments
        if not segments or segments[-1].size != epoch.tail_bytes or not segments[-1].name.first <= epoch.claimed:
            return False
        if any(after.name.first <= before.name.first for before, after in pairwise(segments)):
            return False
        for segment, after in pairwise(segments):
            segment.last = after.name.first - 1
        segments[-1].last = epoch.synced = epoch.claimed
        return True

    def open(self, epoch: Epoch) -> list[bytes]:
        """Give every segment its range, the last one by scanning.

        Returns the newest segment's tokens, if there is one.
        """
        segments, promised = epoch.segments, max(epoch.claimed, epoch.acked)
        for segment, after in pairwise(segments):
            segment.last = after.name.first - 1
        # A segment that was given up before anything in it was synced has a successor with the same first
        # number.
        for segment in [item for item in segments[:-1] if item.last < item.name.first]:
            segments.remove(segment)
            self._discard(segment)
        limit: int | None = None
        while segments:
            segment = segments[-1]
            found = self._scan(segment, limit, promised)
            if found.last >= segment.name.first:
                segment.last = epoch.synced = found.last
                if found.header_end == 0 and len(segments) > 1:  # its header's tokens are in the segment before it
                    before = self._scan(segments[-2], segment.name.first - 1, promised).tokens
                    found.tokens = deque((*before, *found.tokens), TOKENS_MAX)
                if not self._settle_tail(segment, found):
                    return []
                self.has_header = found.header_end > 0
                return list(found.tokens)
            segments.pop()
            limit = segment.name.first - 1
            if segment.size > found.header_end:
                self._report.torn_tails += 1
                self._report.torn_bytes += segment.size - found.header_end
                self._quarantine(segment)
            else:
                self._discard(segment)
        return []

    def _scan(self, segment: Segment, limit: int | None, promised: int) -> _Scan:
        """Read the frames; those above `limit` were given up by the writer and do not count.

        A hole in front of something that was safe is damage. A hole behind everything that was safe belongs to a group that
        was being written when the power went: nothing of it was promised, so it ends the segment like any torn tail.
        """
        data = self._read(segment)
        header = decode_header(data)
        start = header.end
        segment.begun_s, segment.headless = header.begun_s or None, not header.end
        found = _Scan(segment.name.first - 1, start, start, deque(header.tokens, TOKENS_MAX))
        outlines = _Outlines(data, start, seed_of(segment.name))
        safe = max(outlines.synced_max, promised)
        for seq0, last, end, token in outlines:
            if seq0 <= found.last or (limit is not None and last > limit):
                continue
            if seq0 > found.last + 1:
                if found.last >= safe:
                    break
                segment.damaged = True
            found.last, found.end = last, end
            if last <= safe:
                found.safe_end = end
            if token:
                found.tokens.append(token)
        found.doubtful = data[found.safe_end : found.end]
        if segment.damaged:
            self._report.damaged_segments += 1
        return found

    def _read(self, segment: Segment) -> bytes:
        for _ in range(ATTEMPTS_MAX):
            try:
                return self._files.read(self._folder / str(segment.name), 0, min(segment.size, SEGMENT_READ_BYTES_MAX))
            except OSError:
                continue
        self._report.unreadable_segments += 1
        return b""

    def _settle_tail(self, segment: Segment, found: _Scan) -> bool:
        """Cut what is torn and sync the rest: after a kill it may be in the page cache only. True if it is durable now.

        Without that a redelivered message would be recognised and answered although a power cut could still
        take its record.
        """
        torn = segment.size - found.end
        if torn > 0:
            self._report.torn_tails += 1
            self._report.torn_bytes += torn
        segment.size = found.end
        if not self._repair:
            return True
        for _ in range(ATTEMPTS_MAX):
            file: File | None = None
            try:
                file = self._files.open(self._folder / str(segment.name))
                if torn > 0:
                    file.truncate(found.end)
                # Written again, not only synced: if a sync failed just before the kill, the kernel counts these pages as
                # clean although they never reached the storage.
                write_all(file, found.doubtful, found.safe_end)
                file.datasync()
            except OSError:
                continue
            else:
                return True
            finally:
                if file is not None:
                    close_quietly(file)
        return False

    def _discard(self, segment: Segment) -> None:
        if self._repair:
            try:
                self._files.unlink(self._folder / str(segment.name))
            except OSError:
                return  # it holds nothing; the next opening tries again

    def _quarantine(self, segment: Segment) -> None:
        if self._repair:
            quarantine(self._files, self._folder, segment.name)


def quarantine(files: Files, folder: Path, name: SegmentName) -> None:
    """Move a damaged segment aside for a person to look at.

    Keeps the `QUARANTINED_MAX` latest. Best effort.
    """
    aside = folder / QUARANTINE
    try:
        files.prepare(aside)
        files.rename(folder / str(name), aside / str(name))
        kept = sorted(found for found in map(parse_name, files.names(aside)) if found is not None)
        by_age = sorted(kept, key=lambda found: (found.opening, found.first))
        for old in by_age[:-QUARANTINED_MAX]:
            files.unlink(aside / str(old))
    except OSError:
        return
