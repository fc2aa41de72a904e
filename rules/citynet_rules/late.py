"""Which readings are late: their time is not after the newest one of their series that was accepted before them.

Of a series with a lateness bound: `citynet_rules.reorder`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from citynet.batch import I32, I64, Bools
from citynet.errors import CitynetError


def is_late(times_us: Iterable[int], tip_us: int) -> list[bool]:
    """The definition, for one series in acceptance order; `tip_us` is its newest time before. The oracle of
    `late_rows`."""
    found = []
    for time_us in times_us:
        found.append(time_us <= tip_us)
        tip_us = max(tip_us, time_us)
    return found


def late_rows(time_us: I64, start: I64, tip_us: I64) -> Bools | None:
    """`is_late` of every row of a grouped batch; None when no row is late, which costs one comparison a row.

    Args:
        time_us: int64, one entry a row, grouped by series.
        start: int64, first row of each group (ascending, the first is 0).
        tip_us: int64, newest time accepted before, one entry a group.
    """
    rising = np.empty(len(time_us), np.bool_)
    np.greater(time_us[1:], time_us[:-1], out=rising[1:])
    rising[start] = time_us[start] > tip_us
    if rising.all():
        return None
    late: Bools = time_us <= newest_before(time_us, start, tip_us)
    return late


def newest_before(time_us: I64, start: I64, tip_us: I64) -> I64:
    """For every row of a grouped batch (as `late_rows`) the newest time before it, of its group or its group's tip."""
    # A running maximum a group, as one over all rows: times become ranks, and each group's ranks lie above
    # those of the group before it. Ranks instead of times, because times may be anything and must not
    # overflow.
    times, ranks = np.unique(np.concatenate([time_us, tip_us]), return_inverse=True)
    group = np.repeat(np.arange(len(start)), np.diff(start, append=len(time_us)))
    base = group * (len(ranks) + 1)
    rank = ranks[: len(time_us)] + base
    before = np.empty_like(rank)
    before[1:] = rank[:-1]
    before[start] = ranks[len(time_us) :] + base[start]
    newest: I64 = times[np.maximum.accumulate(before) - base]
    return newest


def check_grouped(ids: I32) -> None:
    """Each series must be one run of rows, or the tip of a run would be compared with the wrong one."""
    if len(ids) > 1 and not (ids[1:] > ids[:-1]).all() and len(np.unique(ids)) != len(ids):
        raise CitynetError("batch is not grouped by series: one series has two runs of rows")
