"""HJ 633: every corner of the tables, between them, caps, primary and missing pollutants, means."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, isnan, nan

import numpy as np
import pytest

from citynet_rules.aqi.means import daily_mean, daily_o3_8h, running_8h, running_24h
from citynet_rules.aqi.station import daily, hourly
from citynet_rules.aqi.table import EDITIONS, Column, class_of

# HJ 633-2026 as the domain reference prints it, row by row: the table of the code is written column by column.
ROWS = """
50  50   150 40  100  2  5   100 160  50  35
100 150  500 80  200  4  10  160 200  120 60
150 475  650 180 700  14 35  215 300  250 115
200 800  800 280 1200 24 60  265 400  350 150
300 1600 b   565 2340 36 90  800 800  420 250
400 2100 b   750 3090 48 120 c   1000 500 350
500 2620 b   940 3840 60 150 c   1200 600 500
"""
NAMES = ["so2_24h", "so2_1h", "no2_24h", "no2_1h", "co_24h", "co_1h", "o3_8h", "o3_1h", "pm10_24h", "pm2_5_24h"]
CORNERS = [
    (name, float(cell), int(index))
    for index, *cells in (line.split() for line in ROWS.strip().splitlines())
    for name, cell in zip(NAMES, cells, strict=True)
    if cell not in "bc"
]
COLUMNS = [column for edition in EDITIONS.values() for column in edition.columns.values()]
CLEAN = {"so2": 10, "no2": 20, "co": 0.5, "o3": 60, "pm10": 30, "pm2_5": 20}


@pytest.mark.parametrize(("name", "concentration", "index"), CORNERS)
def test_the_corners_of_2026(name: str, concentration: float, index: int) -> None:
    """At a breakpoint its index; the least bit above it the next one, for the index is rounded up."""
    column = EDITIONS["2026"].columns[name]
    assert column.iaqi(concentration) == index
    if concentration < column.at[-1]:
        assert column.iaqi(concentration + 0.001) == index + 1


def exact(column: Column, concentration: Fraction) -> int:
    """The formula in exact numbers."""
    high = next(n for n, at in enumerate(column.at) if n and concentration <= at)
    c1, c2 = Fraction(column.at[high - 1]), Fraction(column.at[high])
    i1, i2 = column.index[high - 1], column.index[high]
    return ceil((i2 - i1) / (c2 - c1) * (concentration - c1) + i1)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_between_the_corners(column: Column) -> None:
    """At every tenth of a unit up to the end: what exact arithmetic gives, in single values and in columns."""
    tenths = range(int(column.at[-1]) * 10 + 1)
    want = [exact(column, Fraction(n, 10)) for n in tenths]
    values = [n / 10 for n in tenths]
    assert [column.iaqi(value) for value in values] == want
    assert column.iaqis(np.array(values)).tolist() == want


def test_values_worked_by_hand() -> None:
    """PM2.5 of 90: (150 − 100) / (115 − 60) · 30 + 100 = 127.3, so 128. By 2012: (50 / 40) · 15 + 100 = 118.75, so 119."""
    assert EDITIONS["2026"].columns["pm2_5_24h"].iaqi(90) == 128
    assert EDITIONS["2012"].columns["pm2_5_24h"].iaqi(90) == 119
    assert EDITIONS["2026"].columns["co_1h"].iaqi(7.5) == 75


def test_beyond_the_short_tables() -> None:
    """Notes b and c of 2026: capped. 2012 has no index there."""
    now, then = EDITIONS["2026"].columns, EDITIONS["2012"].columns
    assert (now["so2_1h"].iaqi(800.1), now["so2_1h"].iaqi(5000)) == (200, 200)
    assert (now["o3_8h"].iaqi(800.1), now["o3_8h"].iaqi(2000)) == (300, 300)
    assert isnan(then["so2_1h"].iaqi(800.1))
    assert isnan(then["o3_8h"].iaqi(800.1))
    assert (now["pm10_24h"].iaqi(9999), then["pm10_24h"].iaqi(9999)) == (500, 500)


def test_odd_numbers() -> None:
    column = EDITIONS["2026"].columns["pm2_5_24h"]
    odd = [-3.0, 0.0, nan, float("inf"), -float("inf"), 1e-12]
    want = [0, 0, None, None, None, 0]
    assert [None if isnan(x) else x for x in map(column.iaqi, odd)] == want
    assert [None if isnan(x) else x for x in column.iaqis(np.array(odd)).tolist()] == want


def test_the_hourly_column_of_so2_is_not_the_daily_one() -> None:
    """Public tables have copied 150, 500, 650, 800 into the 24-hour column: 475 would be 97 instead of 150."""
    for edition in EDITIONS.values():
        assert edition.columns["so2_24h"].at[1:5] == (50, 150, 475, 800)
        assert edition.columns["so2_24h"].iaqi(475) == 150


def test_the_editions_differ_where_the_reference_says() -> None:
    now, then = EDITIONS["2026"], EDITIONS["2012"]
    differ = {name for name in now.columns if now.columns[name].at != then.columns[name].at}
    assert differ == {"pm10_24h", "pm2_5_24h"}
    assert (then.columns["pm2_5_24h"].iaqi(75), then.columns["pm10_24h"].iaqi(150)) == (100, 100)
    assert (now.status, str(now.valid_from)) == ("P", "2026-03-01")


def test_classes() -> None:
    names = [class_of(aqi).name_zh for aqi in (0, 50, 51, 100, 101, 150, 151, 200, 201, 300, 301, 500)]
    assert names == [name for name in ("优", "良", "轻度污染", "中度污染", "重度污染", "严重污染") for _ in range(2)]
    assert class_of(500).colour == "maroon"


def test_a_station() -> None:
    """The largest index and who has it; two can have it; below 51 nobody is named."""
    clean = daily(CLEAN)
    assert (clean.aqi, clean.primary, clean.missing) == (30, (), ())
    assert clean.rank is not None
    assert clean.rank.colour == "green"
    dusty = daily(CLEAN | {"pm10": 250, "pm2_5": 115})
    assert (dusty.aqi, dusty.primary) == (150, ("pm10", "pm2_5"))


def test_hours_and_days_use_their_own_columns() -> None:
    """300 ug/m3 of ozone: 150 as an hour, 207 as eight hours; particles use one column in both."""
    assert hourly(CLEAN | {"o3": 300}).aqi == 150
    assert daily(CLEAN | {"o3": 300}).aqi == 207
    assert hourly(CLEAN | {"pm2_5": 115}).aqi == daily(CLEAN | {"pm2_5": 115}).aqi == 150


def test_missing_pollutants() -> None:
    """Published only when the rest give more than 100."""
    rest = {name: value for name, value in CLEAN.items() if name != "o3"}
    assert daily(rest).aqi is None
    assert daily(rest).rank is None
    assert daily(rest).missing == ("o3",)
    assert daily(rest | {"pm2_5": 60}).aqi is None  # exactly 100
    assert daily(rest | {"pm2_5": 61}).aqi == 101
    assert daily(rest | {"o3": nan, "pm2_5": 61}).primary == ("pm2_5",)
    assert daily({}).aqi is None
    with pytest.raises(KeyError):
        daily({"pm25": 3.0})


def test_a_pollutant_beyond_the_table_of_2012_is_missing() -> None:
    assert daily(CLEAN | {"o3": 900}, "2012").missing == ("o3",)
    assert daily(CLEAN | {"o3": 900}).aqi == 300


def test_running_means_need_enough_hours() -> None:
    assert running_8h([1.0] * 5 + [nan, 1.0, 4.0])[-3:] == pytest.approx([nan, 1.0, 10 / 7], nan_ok=True)
    hours = [1.0] * 20 + [nan] * 4
    assert daily_mean(hours) == 1
    assert isnan(daily_mean([nan, *hours[1:]]))
    assert isnan(running_24h([1.0] * 19)[-1])
    assert running_24h([1.0] * 20)[-1] == 1
    assert running_24h([100.0, *[1.0] * 24])[-1] == 1


def test_the_ozone_of_a_day() -> None:
    """The largest of the means that lie within the day; with 14 of 17 of them."""
    hours = [0.0] * 10 + [80.0] * 8 + [0.0] * 6
    assert daily_o3_8h(hours) == 80
    assert daily_o3_8h([500.0] + [8.0] * 23) == pytest.approx(556 / 8)
    assert isnan(daily_o3_8h([nan] * 9 + [8.0] * 15))
    assert daily_o3_8h([nan] * 5 + [8.0] * 19) == 8
    with pytest.raises(ValueError, match="23 hours, a day has 24"):
        daily_mean([1.0] * 23)
