"""Kind `spectrum`: the estimate against closed forms and a direct Fourier sum, windows against their definition."""

from __future__ import annotations

from cmath import exp
from math import cos, isclose, pi, sin, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet_rules.engine import SeriesInfo, Transition
from citynet_rules.group import Group
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.kind import Segments
from citynet_rules.kinds.spectrum import STATE, SpectrumMachine, amplitudes, look, mean_squares
from citynet_rules.spec import RuleSet

from .rules_streams import SECOND, Reading, apply, engine, feed, keys, law, rule

SERIES = (SeriesInfo(1, "bridge-1", "x", "gw-1"), SeriesInfo(2, "bridge-2", "x", "gw-1"))
SIZES = st.sampled_from([8, 10, 32, 54, 64])
SHIFT: Any = rule(
    "spectrum", "mode", measure="shift", unit="mm/s2", rate_hz=50, samples=256, low_hz=1, high_hz=8, learn_windows=5,
    peak_share=0.5, rms_min=5, levels={"yellow": 5, "orange": 10}, gap_s_max=60,
)  # fmt: skip


def direct(samples: list[float]) -> list[float]:
    """P(k) by its definition, without numpy: line away, Hann, Fourier sum, Parseval's scaling."""
    n = len(samples)
    mean, middle = sum(samples) / n, (n - 1) / 2
    slope = sum((k - middle) * (x - mean) for k, x in enumerate(samples)) / sum((k - middle) ** 2 for k in range(n))
    window = [0.5 * (1 - cos(2 * pi * k / n)) for k in range(n)]
    inner = [w * (x - mean - slope * (k - middle)) for k, (x, w) in enumerate(zip(samples, window, strict=True))]
    size = [abs(sum(x * exp(-2j * pi * k * m / n) for m, x in enumerate(inner))) for k in range(n // 2 + 1)]
    scale = n * sum(w * w for w in window)
    return [(1 if k in {0, n // 2} else 2) * a * a / scale for k, a in enumerate(size)]


@law
@given(SIZES.flatmap(lambda n: st.lists(st.floats(-1000, 1000), min_size=n, max_size=n)))
def test_the_estimate_is_the_fourier_sum(samples: list[float]) -> None:
    got = mean_squares(amplitudes(np.array(samples)), len(samples))
    expected = direct(samples)
    assert np.allclose(got, expected, rtol=1e-9, atol=1e-9 * (1 + max(map(abs, samples))) ** 2)


@law
@given(SIZES.flatmap(lambda n: st.lists(st.floats(-1000, 1000), min_size=n, max_size=n)))
def test_parseval(samples: list[float]) -> None:
    """All bins together hold the mean square of the windowed samples, in units of the window's own."""
    n = len(samples)
    place = np.arange(n)
    straight = np.array(samples) - np.polyval(np.polyfit(place, samples, 1), place)
    window = 0.5 * (1 - np.cos(2 * np.pi * place / n))
    whole = float(((window * straight) ** 2).sum() / (window**2).sum())
    got = float(mean_squares(amplitudes(np.array(samples)), n).sum())
    assert isclose(got, whole, rel_tol=1e-9, abs_tol=1e-9 * (1 + max(map(abs, samples))) ** 2)


@law
@given(
    st.floats(12.0, 200.0), st.floats(0.1, 1000), st.floats(0, 2 * pi), st.floats(-1e4, 1e4), st.floats(-10, 10)
)  # bins; not near the mean, nor near half the rate
def test_a_sine_has_its_amplitude_and_frequency(
    bins: float, amplitude: float, phase: float, offset: float, slope: float
) -> None:
    """RMS is A/√2 and the frequency lies between bins where it should, whatever offset, drift and phase."""
    n = 512
    samples = np.array([offset + slope * k + amplitude * sin(2 * pi * bins * k / n + phase) for k in range(n)])
    seen = look(samples, 5, 250, 0.5)
    assert isclose(seen.rms, amplitude / sqrt(2), rel_tol=2e-3)
    assert seen.bin is not None
    assert isclose(seen.bin, bins, abs_tol=5e-3)


def test_a_band_holds_what_is_in_it() -> None:
    """Two sines: each alone in its band, both in the whole; noise has no dominant frequency, nothing has none either."""
    k = np.arange(1024)
    samples = 30 * np.sin(2 * np.pi * 100 * k / 1024) + 40 * np.sin(2 * np.pi * 300 * k / 1024)
    assert look(samples, 50, 150, 0.5).rms == pytest.approx(30 / sqrt(2))
    assert look(samples, 250, 350, 0.5).rms == pytest.approx(40 / sqrt(2))
    assert look(samples, 1, 512, 0.5).rms == pytest.approx(50 / sqrt(2), rel=1e-4)
    assert look(samples, 150, 250, 0.0).rms == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(5).standard_normal(1024)
    assert look(noise, 10, 500, 0.25).bin is None
    assert look(noise, 1, 512, 0.0).rms == pytest.approx(1.0, rel=0.1)
    assert look(np.full(64, 9.81), 1, 32, 0.0).bin is None
    assert look(np.full(64, 1e200) * np.arange(64) ** 2, 1, 32, 0.0).bin is None


def vibration(series: int, start_s: float, count: int, hz: float, swing: float = 100.0) -> list[Reading]:
    """`count` samples at 50 Hz of a sine and a little noise."""
    noise = np.random.default_rng(count).standard_normal(count)
    return [
        Reading(series, round((start_s + k / 50) * SECOND), 9810 + swing * sin(2 * pi * hz * k / 50) + noise[k], 0)
        for k in range(count)
    ]


def test_a_shifted_mode_is_told_with_its_baseline() -> None:
    """Five windows of 256 samples teach 3 Hz; 2.8 Hz is 6.7 % less, 2.6 Hz 13.3 %, and the way back clears."""
    rows = vibration(1, 0, 6 * 256, 3.0) + vibration(1, 100, 2 * 256, 2.8) + vibration(1, 150, 256, 2.6)
    rows += vibration(1, 200, 512, 3.0) + vibration(2, 0, 2560, 3.0)
    found, _ = feed(engine(RuleSet((SHIFT,)), SERIES), rows)
    assert [(t.object, t.kind, t.level) for t in found] == [
        ("bridge-1", "raise", 2), ("bridge-1", "escalate", 3), ("bridge-1", "clear", 3),
    ]  # fmt: skip
    evidence = found[0].evidence
    assert evidence["baseline_hz"] == pytest.approx(3.0, abs=0.01)
    assert evidence["dominant_hz"] == pytest.approx(2.8, abs=0.01)
    assert evidence["expected"] == pytest.approx([2.85, 3.15], abs=0.02)
    assert (found[0].value, found[0].limit, evidence["unit"]) == (pytest.approx(6.67, abs=0.3), 5.0, "%")
    assert evidence["window_begin_us"] == 100 * SECOND


def test_what_is_not_steady_is_no_baseline() -> None:
    """Windows at 2, 3, 4, 5 and 6 Hz teach nothing; the next five do."""
    rows = [row for n, hz in enumerate((2, 3, 4, 5, 6)) for row in vibration(1, 10 * n, 256, hz)]
    rows += vibration(1, 100, 5 * 256, 3.0) + vibration(1, 200, 256, 3.3)
    (raised,) = feed(engine(RuleSet((SHIFT,)), SERIES), rows)[0]
    assert raised.evidence["baseline_hz"] == pytest.approx(3.0, abs=0.01)


def test_a_quiet_bridge_has_no_mode() -> None:
    """Below `rms_min` a window says nothing, however far its peak is."""
    rows = vibration(1, 0, 6 * 256, 3.0) + vibration(1, 100, 512, 2.0, swing=2.0)
    assert feed(engine(RuleSet((SHIFT,)), SERIES), rows)[0] == []


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda rows: [*rows[:100], *rows[101:]], 1),  # one is missing
        (lambda rows: [*rows[:100], Reading(1, rows[100].time_us, rows[100].value, 2), *rows[101:]], 1),  # bad
        (lambda rows: [Reading(1, round(row.time_us * 1.05), row.value, 0) for row in rows], 1),  # another rate
        (lambda rows: [Reading(1, row.time_us + 4000 * (n % 2), row.value, 0) for n, row in enumerate(rows)], 0),
        (lambda rows: [Reading(1, row.time_us + 6000 * (n % 2), row.value, 0) for n, row in enumerate(rows)], 255),
    ],
)
def test_gaps_and_irregular_sampling(change: Any, broken: int) -> None:
    """256 samples in which something is wrong are no window, and are counted; jitter of a quarter is borne."""
    machine = SpectrumMachine(SHIFT)
    state = machine.initial()
    for row in change(vibration(1, 1, 256, 3.0)):
        state, _ = machine.step(state, row.time_us, row.value, row.quality)
    assert state.broken == broken
    assert len(state.learning.frequencies) == (0 if broken else 1)


CHUNKS = st.lists(
    st.tuples(st.integers(1, 300), st.sampled_from([2.0, 3.0, 3.0, 3.1, 4.0]), st.sampled_from([0, 0, 0, 30, 7])),
    min_size=3, max_size=8,
)  # fmt: skip


def stream(chunks: list[tuple[int, float, int]]) -> list[Reading]:
    """Samples of two series, at rates that are right or (gap 7) a little off, with pauses between the chunks."""
    rows, start_s = list[Reading](), 0.0
    for count, hz, gap in chunks:
        for series in (1, 2):
            rows += vibration(series, start_s, count if series == 1 else max(1, count - gap), hz)
        start_s += count / 50 + (gap / 10 if gap else 0)
    return sorted(rows, key=lambda row: row.time_us)


def plain(t: Transition) -> tuple[Any, ...]:
    return (t.object, t.kind, t.level, t.time_us, t.value, t.limit, t.evidence["windows_broken"])


@law
@given(CHUNKS, st.sets(st.integers(0, 2400), max_size=12))
def test_the_kernel_is_the_machine(chunks: list[tuple[int, float, int]], cuts: set[int]) -> None:
    small = SHIFT.model_copy(update={"samples": 64, "learn_windows": 3, "low_hz": 1.0, "high_hz": 20.0})
    rows = stream(chunks)
    whole, cut = engine(RuleSet((small,)), SERIES), engine(RuleSet((small,)), SERIES)
    got, again = apply(whole, rows), apply(cut, rows, cuts)
    expected = []
    for info in SERIES:
        machine = SpectrumMachine(small)
        state = machine.initial()
        for row in (row for row in rows if row.series == info.id):
            state, changes = machine.step(state, row.time_us, row.value, row.quality)
            for c in changes:
                broken = (c.more or {})["windows_broken"]
                expected.append((info.device, c.change, c.level, c.time_us, c.value, c.limit, broken))
    assert sorted(map(plain, got), key=repr) == sorted(expected, key=repr)
    assert keys(got) == keys(again)
    assert whole.snapshot() == cut.snapshot()


STEPS_MS = st.lists(st.sampled_from([20, 20, 20, 20, 17, 30, 10_000]), min_size=1, max_size=60)


@law
@given(STEPS_MS, st.sets(st.integers(1, 59), max_size=6))
def test_torn_windows_leave_the_row_of_the_machine(steps_ms: list[int], cuts: set[int]) -> None:
    """To the last byte: a snapshot must not tell how the input was cut."""
    small = SHIFT.model_copy(update={"samples": 8, "learn_windows": 3, "low_hz": 6.25, "high_hz": 25.0, "rms_min": 0.0})
    group, machine = Group(KINDS["spectrum"], [small]), SpectrumMachine(small)
    group.add(np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.int32))
    state, time_us = machine.initial(), np.cumsum(steps_ms) * 1000
    value = 100 * np.sin(np.arange(len(time_us)) * 0.9) + 3
    for part in np.split(np.arange(len(time_us)), sorted(cuts)):
        for k in part.tolist():
            state, _ = machine.step(state, int(time_us[k]), float(value[k]), 0)
        if len(part):
            none, edges = np.zeros(len(part), np.uint8), (np.zeros(1, np.int64), np.full(1, len(part)))
            before = (np.zeros(1, np.int64), np.zeros(1))
            group.kernel.feed(
                group.pairs,
                Segments(np.zeros(1, np.int64), *edges, *before, time_us[part], value[part], none, None, none),
            )
        assert group.pairs.state[0].tobytes() == np.array([machine.pack(state)], STATE)[0].tobytes()
