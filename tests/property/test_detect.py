"""Laws of the detectors: nothing read ahead, no unit matters, no input breaks them, the fast form is the readable one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citynet.batch import F64
from citynet_rules.detect import ensemble, table
from citynet_rules.detect.ensemble import SeriesDetector
from citynet_rules.detect.quantiles import QuantileRing
from citynet_rules.detect.table import TableDetector, learn
from tests.property import detect_oracle as oracle

law = settings(deadline=None, print_blob=True, max_examples=20)
seeds = st.integers(0, 2**32 - 1)
odd = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 1.0])


def city_series(seed: int, rows: int = 500) -> tuple[F64, F64]:
    """Times (irregular, some repeated) over several days, and values with a daily shape, noise, spikes and a step."""
    rng = np.random.default_rng(seed)
    step = rng.choice([0.0, 600.0, 900.0, 1200.0], rows, p=[0.05, 0.3, 0.6, 0.05])
    time_s = 1.7e9 + np.cumsum(step)
    value = 10 * np.sin(time_s / 86_400 * 2 * np.pi) + rng.normal(size=rows) * rng.uniform(0, 3)
    value[rng.integers(0, rows, 3)] += 40
    value[rng.integers(rows // 2, rows) :] += rng.uniform(-20, 20)
    return time_s, value


def table_of(seed: int, rows: int = 400, sensors: int = 5) -> F64:
    """Sensors that are mixtures of two autoregressive causes, with noise."""
    rng = np.random.default_rng(seed)
    cause = np.zeros((rows, 2))
    for row in range(1, rows):
        cause[row] = 0.9 * cause[row - 1] + rng.normal(size=2)
    return np.asarray(cause @ rng.normal(size=(2, sensors)) + 0.3 * rng.normal(size=(rows, sensors)))


@law
@given(seeds, st.integers(1, 499))
def test_a_severity_depends_on_its_past_only(seed: int, cut: int) -> None:
    time_s, value = city_series(seed)
    whole = SeriesDetector().feed(time_s, value)
    changed = value.copy()
    changed[cut:] = np.random.default_rng(seed).normal(size=len(value) - cut) * 1e6
    assert SeriesDetector().feed(time_s[:cut], value[:cut]).tolist() == whole[:cut].tolist()
    assert SeriesDetector().feed(time_s, changed)[:cut].tolist() == whole[:cut].tolist()


@law
@given(seeds, st.lists(st.integers(0, 500), max_size=5))
def test_pieces_and_saved_states_change_nothing(seed: int, cuts: list[int]) -> None:
    time_s, value = city_series(seed)
    whole = SeriesDetector().feed(time_s, value)
    detector = SeriesDetector()
    parts = []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 500], strict=True):
        parts.append(detector.feed(time_s[start:stop], value[start:stop]))
        state = {name: array.copy() for name, array in detector.save().items()}
        detector = SeriesDetector()
        detector.load(state)
    assert np.concatenate(parts).tolist() == whole.tolist()


@law
@given(seeds)
def test_series_detector_is_the_readable_one(seed: int) -> None:
    time_s, value = city_series(seed, 420)
    value[200] += 100
    expected = oracle.series_severity(time_s.tolist(), value.tolist())
    assert max(expected) >= ensemble.ALARM
    np.testing.assert_allclose(SeriesDetector().feed(time_s, value), expected, rtol=1e-6, atol=1e-9)


@law
@given(seeds, st.sampled_from([0.5, 2.0, 1024.0]))
def test_a_unit_changes_no_severity(seed: int, unit: float) -> None:
    time_s, value = city_series(seed)
    assert SeriesDetector().feed(time_s, value * unit).tolist() == SeriesDetector().feed(time_s, value).tolist()


@law
@given(seeds, st.sampled_from([-1000.0, 50.0]))
def test_an_offset_changes_no_severity(seed: int, offset: float) -> None:
    time_s, value = city_series(seed)
    given_ = SeriesDetector().feed(time_s, value)
    np.testing.assert_allclose(SeriesDetector().feed(time_s, value + offset), given_, rtol=1e-3, atol=1e-3)


@law
@given(st.lists(st.one_of(odd, st.floats()), max_size=300), st.floats(-1e12, 1e12))
def test_no_value_breaks_the_series_detector(values: list[float], start: float) -> None:
    value = np.array([1.0, 2.0] * 80 + values)
    with np.errstate(all="raise", under="ignore"):
        severity = SeriesDetector().feed(start + np.arange(len(value)) * 300.0, value)
    assert ((severity >= 0) & (severity <= 1)).all()
    assert (severity[~np.isfinite(value)] == 0).all()


def test_a_constant_series_is_silent_and_its_first_change_is_not() -> None:
    value = np.full(400, 20.1)
    value[300:] = 25.0
    severity = SeriesDetector().feed(np.arange(400.0), value)
    assert severity[:300].max() == 0
    assert severity[300] >= ensemble.ALARM
    assert (severity[301:] < ensemble.ALARM).all()  # announced once


def test_a_flat_line_in_a_daily_shape_is_seen_within_the_usual_range() -> None:
    time_s = np.arange(0, 10 * 86_400.0, 600)
    value = 50 + 10 * np.sin(time_s / 86_400 * 2 * np.pi) + np.random.default_rng(5).normal(size=len(time_s))
    assert (SeriesDetector().feed(time_s, value)[1200:1300] < ensemble.ALARM).all()
    value[1200:1300] = 42.0
    assert (SeriesDetector().feed(time_s, value)[1200:1300] >= ensemble.ALARM).any()


@law
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 1))
def test_ring_gives_quantiles_of_its_newest_values(values: list[int], capacity: int, share: float) -> None:
    ring = QuantileRing(capacity)
    for value in values:
        ring.push(float(value))
    newest = [float(value) for value in values[-capacity:]]
    assert ring.quantile(share) == oracle.quantile(newest, share)
    assert ring.save().tolist() == newest


@law
@given(seeds, st.integers(0, 4))
def test_residuals_are_those_of_one_ridge_regression_a_sensor(seed: int, sensor: int) -> None:
    rows = table_of(seed)
    columns = table.design(rows, np.zeros((table.LAGS, 5)))
    found = table.residuals(columns, table.precision_of(columns[:200]), 5)[:, sensor]
    np.testing.assert_allclose(found, oracle.ridge_residual(columns[:200], sensor, columns), rtol=1e-6, atol=1e-8)


@law
@given(seeds, st.integers(201, 399), st.lists(st.integers(200, 400), max_size=4))
def test_table_alarms_depend_on_the_past_only_and_not_on_pieces(seed: int, cut: int, cuts: list[int]) -> None:
    rows = table_of(seed)
    rows[np.random.default_rng(seed).random(rows.shape) < 0.05] = np.nan
    rows[300:330, 1] += 30
    model = learn(rows[:200])
    whole = TableDetector(model).feed(rows[200:])
    changed = rows.copy()
    changed[cut:] *= -100
    detector = TableDetector(model)
    parts = [detector.feed(rows[a:b]) for a, b in zip([200, *sorted(cuts)], [*sorted(cuts), len(rows)], strict=True)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(TableDetector(model).feed(changed[200:])[: cut - 200], whole[: cut - 200], atol=1e-12)


@law
@given(seeds, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_units_of_a_sensor_change_no_table_severity(seed: int, unit: float, offset: float) -> None:
    rows = table_of(seed)
    other = rows.copy()
    other[:, 2] = other[:, 2] * unit + offset * unit
    severity = [TableDetector(learn(each[:200])).feed(each[200:]) for each in (rows, other)]
    np.testing.assert_allclose(severity[0], severity[1], rtol=1e-5, atol=1e-5)


@law
@given(st.lists(st.lists(st.one_of(odd, st.floats()), min_size=5, max_size=5), max_size=40), seeds)
def test_no_cell_breaks_the_table_detector(cells: list[list[float]], seed: int) -> None:
    rows = np.concatenate([table_of(seed, 200), np.array(cells).reshape(-1, 5)])
    severity = TableDetector(learn(rows[:180])).feed(rows[180:])
    assert ((severity >= 0) & (severity <= 1)).all()
    learn(rows[len(cells) :])  # whatever stands in the warm-up


FAULTS = {
    "bias": lambda rows: rows[:, 2] + 3 * rows[:, 2].std(),
    "stuck": lambda rows: np.full(len(rows), rows[0, 2]),
    "drift": lambda rows: rows[:, 2] + np.linspace(0, 6, len(rows)) * rows[:, 2].std(),
    "turned": lambda rows: -rows[:, 2],
    "noise": lambda rows: rows[:, 2] + 3 * rows[:, 2].std() * np.random.default_rng(1).normal(size=len(rows)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sensor_that_leaves_its_relation_is_an_alarm(fault: str, seed: int) -> None:
    rows = table_of(seed, 1500)
    model = learn(rows[:1000])
    before = TableDetector(model).feed(rows[1000:])
    rows[1200:1400, 2] = FAULTS[fault](rows[1200:1400])
    severity = TableDetector(model).feed(rows[1000:])
    assert (before >= table.ALARM).mean() < 0.02
    assert (severity[:200] >= table.ALARM).mean() < 0.02
    assert (severity[200:400] >= table.ALARM).mean() > 0.4


def test_a_shift_too_small_for_one_row_is_seen_when_it_persists() -> None:
    rows = table_of(1, 2500)
    model = learn(rows[:2000])
    rows[2200:2300, 2] += 2.5 * model.sigma[0, 2] * model.scale.spread[2]
    assert (TableDetector(model).feed(rows[2000:])[210:300] >= table.ALARM).mean() > 0.9


def test_a_dead_sensor_is_no_alarm_and_the_others_are_still_judged() -> None:
    rows = table_of(9, 1500)
    model = learn(rows[:1000])
    rows[1100:, 0] = np.nan
    assert (TableDetector(model).feed(rows[1000:]) >= table.ALARM).mean() < 0.02
    rows[1300:1350, 2] += 5 * rows[:, 2].std()
    assert (TableDetector(model).feed(rows[1300:1350]) >= table.ALARM).mean() > 0.9


def test_a_spike_in_the_warm_up_makes_no_sensor_deaf() -> None:
    rows = table_of(6, 1500)
    rows[[100, 700], 2] = 1e9, -1e300
    model = learn(rows[:1000])
    rows[1200:1250, 2] += 4 * rows[1000:, 2].std()
    assert (TableDetector(model).feed(rows[1000:])[200:250] >= table.ALARM).all()


def test_constant_empty_and_doubled_columns_are_no_trouble() -> None:
    rows = table_of(4, 1500)
    rows = np.column_stack([rows, np.full(1500, 7.0), np.full(1500, np.nan), rows[:, 0]])
    model = learn(rows[:1000])
    assert model.scale.used.tolist() == [0, 1, 2, 3, 4, 7]
    assert model.scale.ignored == {5: "constant during the warm-up", 6: "0 values in a warm-up of 1000 rows"}
    assert (TableDetector(model).feed(rows[1000:]) >= table.ALARM).mean() < 0.02
    rows[1200:1220, 7] += 3 * rows[:, 7].std()
    assert (TableDetector(model).feed(rows[1000:])[200:220] >= table.ALARM).all()
