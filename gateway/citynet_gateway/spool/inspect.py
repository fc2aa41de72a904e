"""Looking into a spool without opening it: for people, also while a gateway runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from citynet.notes import LossNote
from citynet_gateway.spool.files import Files
from citynet_gateway.spool.ledger import Epoch
from citynet_gateway.spool.port import Run
from citynet_gateway.spool.reader import Reader
from citynet_gateway.spool.recovery import recover
from citynet_gateway.spool.store import WATERMARK
from citynet_gateway.spool.watermark import Mark, WatermarkFile

_RECORDS = 500
_BYTES = 256 << 10


class View(Protocol):
    """A spool seen from outside. OSError when it cannot be read."""

    def epochs(self) -> list[Epoch]:
        """As they are now, by stream and age."""
        ...

    def read(self, epoch: Epoch, seq: int, records_max: int, bytes_max: int) -> Run | None: ...

    def acked_now(self, epoch: Epoch) -> int:
        """What has been acknowledged meanwhile."""
        ...

    def size(self, epoch: Epoch) -> tuple[int, int]:
        """(files, bytes)."""
        ...


class SegmentView:
    """`View` of segment files."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._reader = Reader(files, folder)

    def epochs(self) -> list[Epoch]:
        found = recover(self._files, self._folder, self._marks(), repair=False)
        return [epoch for epochs in found.epochs.values() for epoch in epochs]

    def read(self, epoch: Epoch, seq: int, records_max: int, bytes_max: int) -> Run | None:
        return self._reader.read(epoch, seq, records_max, bytes_max)

    def acked_now(self, epoch: Epoch) -> int:
        key = (epoch.number, epoch.stream)
        return next((mark.acked for mark in self._marks() if (mark.epoch, mark.stream) == key), epoch.last)

    def size(self, epoch: Epoch) -> tuple[int, int]:
        return len(epoch.segments), sum(segment.size for segment in epoch.segments)

    def _marks(self) -> list[Mark]:
        is_there = WATERMARK in self._files.names(self._folder)
        return WatermarkFile(self._files, self._folder / WATERMARK).load() if is_there else []


@dataclass(frozen=True, slots=True)
class EpochState:
    """One epoch in one stream; `lost` counts what is declared as lost among the held (only when verified)."""

    stream: str
    epoch: int
    acked: int
    last: int
    held: int
    segments: int
    bytes: int
    lost: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def inspect(view: View, *, verify: bool) -> list[EpochState]:
    """Every epoch of the spool, by stream and age; with `verify` every held record is read. OSError."""
    return [_state(view, epoch, verify=verify) for epoch in view.epochs()]


def _state(view: View, epoch: Epoch, *, verify: bool) -> EpochState:
    acked, held = epoch.acked, epoch.last - epoch.acked
    segments, size = view.size(epoch)
    losses = (note.span for run in runs(view, epoch) for _, note in run.notes if isinstance(note, LossNote))
    lost = sum(losses) if verify else 0
    return EpochState(epoch.stream, epoch.number, acked, epoch.last, held, segments, size, lost)


def runs(view: View, epoch: Epoch) -> Iterator[Run]:
    """The unacknowledged records of an epoch in order, whatever the gateway removes meanwhile. OSError."""
    seq = epoch.acked + 1
    while (run := view.read(epoch, seq, _RECORDS, _BYTES)) is not None:
        if any(isinstance(note, LossNote) for _, note in run.notes):
            acked = view.acked_now(epoch)
            if acked >= seq:  # not lost: arrived since we looked
                epoch.acked, seq = acked, acked + 1
                continue
        yield run
        seq = run.last + 1
