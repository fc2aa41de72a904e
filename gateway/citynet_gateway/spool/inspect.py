"""Looking into a spool without opening it: for people, also while a gateway runs on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from citynet.notes import LossNote
from citynet_gateway.spool.files import Files
from citynet_gateway.spool.ledger import Epoch
from citynet_gateway.spool.recovery import recover
from citynet_gateway.spool.store import WATERMARK
from citynet_gateway.spool.watermark import Mark, WatermarkFile


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


def inspect(files: Files, folder: Path, *, verify: bool) -> list[EpochState]:
    """Every epoch the folder knows, by stream and age; with `verify` every held record is read.

    Raises:
        OSError: the folder or a segment cannot be read.
    """
    found = recover(files, folder, load_marks(files, folder), repair=False)
    return [_state(files, folder, epoch, verify=verify) for epochs in found.epochs.values() for epoch in epochs]


def _state(files: Files, folder: Path, epoch: Epoch, *, verify: bool) -> EpochState:
    return EpochState(
        stream=epoch.stream,
        epoch=epoch.number,
        acked=epoch.acked,
        last=epoch.last,
        held=epoch.last - epoch.acked,
        segments=len(epoch.segments),
        bytes=sum(segment.size for segment in epoch.segments),
        lost=_lost(files, folder, epoch) if verify else 0,
    )


def load_marks(files: Files, folder: Path) -> list[Mark]:
    """What the watermark says now. OSError if there is no such folder."""
    return WatermarkFile(files, folder / WATERMARK).load() if WATERMARK in files.names(folder) else []


def _lost(files: Files, folder: Path, epoch: Epoch) -> int:
    from citynet_gateway.spool.export import runs  # noqa: PLC0415  (it looks in here as well)

    return sum(note.span for run in runs(files, folder, epoch) for _, note in run.notes if isinstance(note, LossNote))
