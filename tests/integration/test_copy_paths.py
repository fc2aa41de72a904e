"""Whatever way rows take into the store, the store holds exactly them, in order."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from citynet.batch import SeriesBatch
from citynet.quality import LATE
from citynet_ingest.store import sql
from citynet_ingest.store.paths import DIRECT_ROWS_PER_SERIES_MIN, Why, by_day, choose, split_late
from citynet_ingest.store.transaction import Partitions, copy_rows

DAY_US = 86_400_000_000
START_US = 1_790_000_000_000_000 // DAY_US * DAY_US


def block(series: int, per_series: int, start_us: int, step_us: int = 1_000_000) -> SeriesBatch:
    ids = np.repeat(np.arange(1, series + 1, dtype=np.int32), per_series)
    times = np.tile(start_us + np.arange(per_series, dtype=np.int64) * step_us, series)
    return SeriesBatch(ids, times, np.sqrt(np.arange(len(ids), dtype=np.float64)), np.zeros(len(ids), np.uint8))


@pytest.mark.parametrize(
    ("rows", "has_columnstore", "why"),
    [
        (block(100, 100, 0), True, Why.DIRECT),
        (block(100, 100, 0), False, Why.PLAIN_SERVER),
        (block(10, 100, 0), True, Why.FEW_ROWS),
        (block(10_000, DIRECT_ROWS_PER_SERIES_MIN - 1, 0), True, Why.FEW_PER_SERIES),
        (SeriesBatch.empty(), True, Why.FEW_ROWS),
    ],
)
def test_choice(rows: SeriesBatch, has_columnstore: bool, why: Why) -> None:
    assert choose(rows, has_columnstore=has_columnstore) is why


def test_cutting_keeps_every_row() -> None:
    rows = block(5, 100, START_US, DAY_US // 30)
    rows.quality[::7] = LATE
    current, late = split_late(rows)
    assert len(current) + len(late) == len(rows)
    days = by_day(current)
    assert len(days) == 4
    assert sum(len(day) for day in days) == len(current)
    assert sorted(row for day in days for row in day.rows()) == sorted(current.rows())


def test_mixed_paths_give_exactly_the_rows_in_order(dsn: str) -> None:
    """Large sorted commits, small ones, late rows into what is compressed already, over several days."""
    given: list[tuple[int, int, float, int]] = []
    random = np.random.default_rng(7)
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(sql.text("has_columnstore")).fetchone()
        has_columnstore = bool(row and row[0])
        partitions = Partitions()
        for number in range(6):
            start = START_US + number * DAY_US // 2
            rows = block(200, 60, start, 700_000_000)
            late = random.random(len(rows)) < 0.02
            rows.time_us[late] -= random.integers(1, DAY_US, late.sum())
            rows.quality[late] |= LATE
            order = np.lexsort((rows.time_us, rows.series))
            rows = SeriesBatch(*(column[order] for column in (rows.series, rows.time_us, rows.value, rows.quality)))
            partitions.ensure(connection, sorted({int(t) // DAY_US for t in rows.time_us}))
            for part in (rows, block(3, 4, start + 43_000_000_000, 1_000_000)):
                with connection.transaction():
                    copy_rows(connection, part, has_columnstore=has_columnstore)
                given.extend(part.rows())
        stored = connection.execute(
            "SELECT series_id, (extract(epoch FROM time) * 1000000)::bigint, value, quality::int FROM reading"
        ).fetchall()
        assert sorted(stored) == sorted(given)
        for series in (1, 2, 77, 200):
            times = [
                t
                for (t,) in connection.execute("SELECT time FROM reading WHERE series_id = %s ORDER BY time", (series,))
            ]
            assert times == sorted(times)
            newest = connection.execute(
                "SELECT time FROM reading WHERE series_id = %s ORDER BY time DESC LIMIT 1", (series,)
            ).fetchone()
            assert newest == (times[-1],)
