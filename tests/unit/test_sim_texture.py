"""The texture of readings is that of a real town's, within the ranges that docs/simulator.md gives with their sources."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from citynet_sim.city import CityParameters, build
from citynet_sim.kinds import KINDS
from citynet_sim.simulation import Simulation
from citynet_sim.texture import STEP_S, Texture, autocorrelation, of_city, series, texture

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
PER_DAY = int(86_400 / STEP_S)


def ranges() -> dict[str, tuple[float, float]]:
    """The table of the page: figure, lowest, highest."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+) to ([\d.]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    return {name: (float(low), float(high)) for name, low, high in rows}


@cache
def district(seed: int, number: int) -> Texture:
    city = build(seed, CityParameters(population=0, devices={"water-meter": 8}))
    simulation = Simulation(city, (), dict.fromkeys(KINDS, round(STEP_S * 1000)))
    return texture(series(simulation, "water-meter", number, "water_flow_m3_h"))


def test_the_page_gives_a_range_for_every_figure() -> None:
    assert set(ranges()) == set(Texture.__slots__)


@pytest.mark.parametrize("name", sorted(Texture.__slots__))
@pytest.mark.parametrize("seed", [1, 2])
def test_district_inflow_is_like_a_real_town_s(name: str, seed: int) -> None:
    low, high = ranges()[name]
    for number in (0, 5):
        assert low <= getattr(district(seed, number), name) <= high


def test_every_kind_is_like_the_page_says() -> None:
    rows = re.findall(
        r"^\| ([a-z-]+) \| `(\w+)` \| (-?[\d.]+) to ([\d.]+) \| `[DQ]`", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert {kind for kind, *_ in rows} == set(KINDS) - {"water-meter"}
    city = build(2, CityParameters(population=0, devices=dict.fromkeys(KINDS, 2)))
    found = {str(figures["kind"]): figures for figures in of_city(city)}
    for kind, name, low, high in rows:
        assert float(low) <= float(str(found[kind][name])) <= float(high), (kind, name, found[kind][name])
    low_share, high_share = ranges()["missing_share"]
    assert all(low_share <= float(str(figures["missing_share"])) <= high_share for figures in found.values())


def test_weeks_differ() -> None:
    """Never too clean: the same hour of two weeks is not the same."""
    city = build(1, CityParameters(population=0, devices={"water-meter": 2}))
    simulation = Simulation(city, (), dict.fromkeys(KINDS, round(STEP_S * 1000)))
    flow = series(simulation, "water-meter", 0, "water_flow_m3_h", weeks=2)
    first, second = flow[: 7 * PER_DAY], flow[7 * PER_DAY :]
    both = ~(np.isnan(first) | np.isnan(second))
    change = np.abs(second[both] / first[both] - 1.0)
    assert 0.01 < np.median(change) < 0.25


def test_figures_of_a_known_series() -> None:
    t = np.arange(14 * PER_DAY) / PER_DAY
    wave = 10.0 + 5.0 * np.cos(2 * np.pi * (t - 15.0 / 24.0))
    wave[100:128] = np.nan
    found = texture(wave)
    assert found.day == pytest.approx(1.0, abs=0.01)
    assert found.hour == pytest.approx(np.cos(2 * np.pi / 24), abs=0.01)
    assert found.night_to_mean == pytest.approx(0.51, abs=0.01)
    assert found.peak_factor == pytest.approx(1.5, abs=0.01)
    assert found.missing_share == pytest.approx(28 / (14 * PER_DAY))
    assert found.weekly_change < 0.01
    assert autocorrelation(np.ones(50), 5) == 0.0
