"""Writing one stream of one epoch: pending frames in memory, one write and one sync a group, a new segment when one is full.

After a failed write or sync the descriptor is poisoned: the kernel may have dropped the pages and would
report the next sync as a success. The file is left; everything pending goes into a new segment, and not before the old one is
cut back to its synced end: else the same records would take room twice, beyond the cap.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path

from citynet.runtime import failpoint
from citynet_gateway.spool.files import File, Files, close_quietly, write_all
from citynet_gateway.spool.ledger import Epoch, Segment, Tokens
from citynet_gateway.spool.port import Frame
from citynet_gateway.spool.segment import SegmentName, encode_header, seed_of

ATTEMPTS_MAX = (
    10_000  # files with one first number: only a storage that can create but not remove gets beyond the second
)


class Writer:
    """The end of a live epoch.

    Nothing is visible to readers (`Epoch.segments`, `Epoch.synced`) before it is synced.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        epoch: Epoch,
        tokens: Tokens,
        segment_bytes: int,
        clock_s: Callable[[], int],
    ) -> None:
        self._files = files
        self._folder = folder
        self._epoch = epoch
        self._tokens = tokens
        self._segment_bytes = segment_bytes
        self._clock_s = clock_s
        self._open: tuple[File, Segment] | None = None  # the segment being written, once it holds something synced
        self._uncut: Segment | None = None  # left after a failure, with bytes behind its synced end
        self._pending = bytearray()
        self.seed = seed_of(SegmentName(epoch.stream, epoch.opening, epoch.number, 1, 0))
        self.appended = epoch.synced
        self.pending_records = 0
        self.poisoned = 0

    @property
    def pending_bytes(self) -> int:
        return len(self._pending)

    def append(self, data: bytes, frame: Frame) -> None:
        """Take an encoded frame that begins at `appended` + 1."""
        self._pending += data
        self.pending_records += frame.count
        self.appended = frame.last
        self._tokens.add(frame.token)

    def sync(self) -> int:
        """Write and sync what is pending; returns by how many bytes the segments grew.

        Raises:
            OSError: nothing of it counts, all of it stays pending; call again.
        """
        if not self._pending:
            return 0
        self._cut()
        failpoint.hit("gateway.before-write")
        grown = self._begin() if self._open is None else self._extend(*self._open)
        self._epoch.synced = self.appended
        self._tokens.synced()
        self._pending.clear()
        self.pending_records = 0
        failpoint.hit("gateway.after-sync")
        segment = self._epoch.segments[-1]
        segment.last = self._epoch.synced
        if segment.size >= self._segment_bytes:
            self._leave()
        return grown

    def _extend(self, file: File, segment: Segment) -> int:
        """Append to the segment that is open."""
        try:
            write_all(file, bytes(self._pending), segment.size)
            failpoint.hit("gateway.after-write")
            file.datasync()
        except OSError:
            self.poisoned += 1
            self._leave()
            self._uncut = segment
            raise
        segment.size += len(self._pending)
        return len(self._pending)

    def _cut(self) -> None:
        """Take off what a failed write has left behind the synced end of a segment. OSError: it is still there, or may be."""
        segment = self._uncut
        if segment is not None and segment in self._epoch.segments:  # else it was acknowledged meanwhile, and removed
            file = self._files.open(self._folder / str(segment.name))
            try:
                file.truncate(segment.size)
                file.datasync()  # or a power cut brings it back
            finally:
                close_quietly(file)
        self._uncut = None

    def _begin(self) -> int:
        """Put what is pending into a new segment; it counts once file and folder are synced."""
        name, file = self._create()
        begun_s = self._clock_s()
        data = encode_header(name, self._tokens.durable(), begun_s) + bytes(self._pending)
        try:
            write_all(file, data, 0)
            failpoint.hit("gateway.after-write")
            file.datasync()
            self._files.sync_folder(self._folder)
        except OSError:
            self.poisoned += 1
            close_quietly(file)
            with contextlib.suppress(OSError):
                self._files.unlink(self._folder / str(name))
            raise
        segment = Segment(name, len(data), self.appended, begun_s=begun_s)
        self._open = file, segment
        self._epoch.segments.append(segment)
        return len(data)

    def _create(self) -> tuple[SegmentName, File]:
        for attempt in range(ATTEMPTS_MAX):
            name = SegmentName(
                self._epoch.stream, self._epoch.opening, self._epoch.number, self._epoch.synced + 1, attempt
            )
            with contextlib.suppress(FileExistsError):
                return name, self._files.create(self._folder / str(name))
        raise OSError(errno.EEXIST, f"{ATTEMPTS_MAX} given-up segments begin at {self._epoch.synced + 1}")

    def _leave(self) -> None:
        if self._open is not None:
            close_quietly(self._open[0])
        self._open = None

    def close(self) -> None:
        self._leave()
