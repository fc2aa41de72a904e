"""The robust linear relation: most of the samples decide, whatever the others are."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from citynet_rules.robust import CUT, _consistency, fit

from .rules_streams import law

SLOPES = st.lists(st.floats(-5, 5), min_size=1, max_size=3)
WILD = st.floats(-1e6, 1e6)


@law
@given(SLOPES, st.floats(-100, 100), st.integers(0, 1000), st.lists(st.tuples(WILD, WILD), max_size=20))
def test_two_in_five_may_be_anything(
    slopes: list[float], constant: float, seed: int, wild: list[tuple[float, float]]
) -> None:
    """48 samples lie on a relation but for a little noise; up to 20 replaced ones, in x and y, do not move it."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-10, 10, (48, len(slopes)))
    y = constant + x @ np.array(slopes) + 0.01 * draw.standard_normal(48)
    for n, (in_x, in_y) in enumerate(wild):
        x[n, 0], y[n] = in_x, in_y
    found = fit(x, y)
    grid = draw.uniform(-10, 10, (20, len(slopes)))
    said = found.coefficient[0] + grid @ found.coefficient[1:]
    assert np.abs(said - (constant + grid @ np.array(slopes))).max() < 0.1
    assert 0 < found.sigma < 0.05
    assert found.followed >= 28 / 48 * 0.8


@law
@given(st.integers(0, 1000), st.floats(0.01, 1000), st.floats(-1e4, 1e4), st.floats(0.01, 1000))
def test_units_change_nothing_but_the_units(seed: int, y_scale: float, y_shift: float, x_scale: float) -> None:
    draw = np.random.default_rng(seed)
    x = draw.uniform(0, 10, (32, 2))
    y = 3 + x @ np.array([2.0, -1.0]) + 0.3 * draw.standard_normal(32)
    one, other = fit(x, y), fit(x * np.array([x_scale, 1.0]), y * y_scale + y_shift)
    assume(abs(y_shift) < 1e6 * y_scale)
    assert np.isclose(other.sigma, one.sigma * y_scale, rtol=1e-3)
    assert np.allclose(other.coefficient[1:], one.coefficient[1:] * y_scale / np.array([x_scale, 1.0]), rtol=1e-3)


def test_sigma_is_that_of_normal_noise() -> None:
    draw = np.random.default_rng(4)
    sigmas, followed = [], []
    for _ in range(60):
        x = draw.uniform(0, 10, (128, 1))
        found = fit(x, 1 + 2 * x[:, 0] + 0.5 * draw.standard_normal(128))
        sigmas.append(found.sigma)
        followed.append(found.followed)
    assert abs(np.median(sigmas) / 0.5 - 1) < 0.05
    assert np.median(followed) > 0.95
    assert np.isclose(_consistency(0.5), 2.65, atol=0.05)
    assert 1.0 < _consistency(0.98758) < 1.06
    assert CUT == 2.5


def test_what_cannot_be_told_apart_is_not_wild() -> None:
    """A constant column, a column twice, all samples alike, values without a square."""
    draw = np.random.default_rng(3)
    x = draw.uniform(0, 10, 64)
    noise = 0.1 * draw.standard_normal(64)
    constant = fit(np.column_stack([x, np.full(64, 7.0)]), 2 * x + noise)
    assert np.isclose(constant.coefficient[0] + 7 * constant.coefficient[2], 0, atol=0.2)
    twice = fit(np.column_stack([x, x]), 2 * x + noise)
    assert np.isclose(twice.coefficient[1:].sum(), 2, atol=0.05)
    assert np.abs(twice.coefficient).max() < 10
    assert fit(np.full((64, 1), 1.0), np.full(64, 5.0)).sigma == 0
    assert fit(x[:, None], 2 * x).sigma == 0
    far = fit(np.array([1e308, *x[1:]])[:, None], np.array([*(2 * x + noise)[:63], -1e308]))
    assert np.isclose(far.coefficient[1], 2, atol=0.05)
