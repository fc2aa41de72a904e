"""Which readings of a refused commit the database refuses, and what becomes of their parcel."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from citynet.batch import I64, Batch
from citynet.formats import Reject
from citynet.reading import Reading
from citynet_ingest.parcel import BatchParcel, DirectParcel, Parcel


def refused_rows(picked: I64, is_accepted: Callable[[I64], bool]) -> list[int]:
    """Those of the picked rows that are refused, found by trial: the halves of what is refused, down to single rows."""
    if not len(picked) or is_accepted(picked):
        return []
    if len(picked) == 1:
        return [int(picked[0])]
    middle = len(picked) // 2
    return refused_rows(picked[:middle], is_accepted) + refused_rows(picked[middle:], is_accepted)


def condemned(parcel: Parcel, refused: list[int], error: str) -> Parcel:
    """The same parcel with the refused readings as dead letters. It stays one message, so it is stored once or not at all."""
    if isinstance(parcel, BatchParcel):
        batch = parcel.batch
        keep = np.ones(len(batch), np.bool_)
        keep[refused] = False
        rejects = [
            (
                int(batch.seq[k]),
                _refusal(_reading(batch, k), error),
            )
            for k in refused
        ]
        return msgspec.structs.replace(parcel, batch=batch.picked(keep, [*batch.rejects, *rejects]))
    if isinstance(parcel, DirectParcel):
        bad = set(refused)
        rejects_direct = [_refusal(r, error) for k, r in enumerate(parcel.readings) if k in bad]
        readings = [r for k, r in enumerate(parcel.readings) if k not in bad]
        rejects_all = [*parcel.rejects, *rejects_direct]
        names = tuple(r.name for r in readings)
        return msgspec.structs.replace(parcel, names=names, readings=readings, rejects=rejects_all)
    return parcel


def _reading(batch: Batch, row: int) -> Reading:
    device, _, metric = batch.names[int(batch.index[row])].partition("/")
    return Reading(device, metric, int(batch.time_us[row]), float(batch.value[row]), int(batch.quality[row]))


def _refusal(reading: Reading, error: str) -> Reject:
    detail = f"{reading.value} at {reading.time_us} µs since 1970: {error}"[:500]
    return Reject("refused-by-database", reading.name, detail, reading)
