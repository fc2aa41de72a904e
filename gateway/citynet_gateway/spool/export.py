"""Records of a spool for people and other programs, read while a gateway works on it or from a card in another machine.

What the gateway sends and removes meanwhile is left out: it has arrived. What is damaged stands there as a loss.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite
from typing import Literal, TextIO

from citynet import wire
from citynet.control import Stream
from citynet.notes import LossNote, Note, RawNote
from citynet.reading import Reading
from citynet_gateway.spool.inspect import View, runs
from citynet_gateway.spool.port import Run

Format = Literal["csv", "jsonl", "batches"]
_COLUMNS = ("stream", "epoch", "seq", "kind", "time", "device", "metric", "value", "quality", "detail")


def export(view: View, gateway: str, how: Format, out: TextIO) -> int:
    """Write every unacknowledged record to `out`; the number of records (losses by their range).

    ``csv`` and ``jsonl`` have one record a line, ``batches`` one envelope (JSON) a line, as ``POST /v1/batches``
    takes it.

    Raises:
        OSError: the spool cannot be read.
    """
    table = csv.writer(out, lineterminator="\n")
    if how == "csv":
        table.writerow(_COLUMNS)
    count = 0
    for epoch in view.epochs():
        for run in runs(view, epoch):
            count += run.count
            if how == "batches":
                header = wire.Header(gateway, epoch.stream, run.epoch, run.seq0, run.count, epoch.last)
                out.write(wire.encode(header, run.readings, run.notes, content_type=wire.JSON).decode() + "\n")
                continue
            for row in _rows(epoch.stream, run):
                if how == "csv":
                    table.writerow(["" if item is None else item for item in row])
                else:
                    entry = {key: item for key, item in zip(_COLUMNS, row, strict=True) if item is not None}
                    out.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return count


def _rows(stream: Stream, run: Run) -> Iterator[tuple[object, ...]]:
    notes, readings, position = dict(run.notes), iter(run.readings), 0
    while position < run.count:
        note, seq = notes.get(position), run.seq0 + position
        yield (stream, run.epoch, seq, *(_of_note(note) if note is not None else _of_reading(next(readings))))
        position += note.span if note is not None else 1


def _of_reading(item: Reading) -> tuple[object, ...]:
    value = item.value if isfinite(item.value) else None
    return "reading", _time(item.time_us), item.device, item.metric, value, item.quality, None


def _of_note(note: Note) -> tuple[object, ...]:
    if isinstance(note, LossNote):
        return "loss", None, None, None, None, None, f"{note.first}..{note.last}: {note.reason}"
    if isinstance(note, RawNote):
        return "raw", None, None, None, None, None, f"{note.topic}: {note.reason}: {note.payload.hex()}"
    return "note", None, None, None, None, None, repr(note)


def _time(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(time_us)
