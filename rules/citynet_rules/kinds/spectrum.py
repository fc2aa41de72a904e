"""Kind `spectrum`: band RMS or dominant frequency of a vibration series, window by window.

Every reading is a sample, `rate_hz` of them a second. `samples` of them in a row, N, are a window; windows follow one another
and are judged with their last sample:

1. The least-squares line is taken away (offset, gravity, drift).
2. Hann: w(n) = ½ (1 − cos(2πn/N)), Σw² = 3N/8.
3. P(k) = 2 |X(k)|² / (N Σw²), half of it for k = 0 and N/2: the mean square of bin k, so that ΣP = Σ(w x)² / Σw² (Parseval)
   and a sine of amplitude A far from the band's ends has √ΣP = A/√2 (P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 1967,
   with one segment).

`measure = "rms"`: the score is √ΣP over the bins from `low_hz` to `high_hz` in `unit`.

`measure = "shift"`: the dominant frequency is that of the largest P in the band, between bins by the ratio α of its amplitude
and its larger neighbour's: δ = (2α − 1)/(α + 1) bins towards it (T. Grandke, IEEE Trans. Instrum. Meas. 32, 1983; exact for a
sine). It counts where peak and neighbours hold at least `peak_share` of the band and the band RMS reaches `rms_min`. The
score is its distance from the baseline in %, |f − f₀|, f − f₀ or f₀ − f by `direction`. f₀ is `baseline_hz`, or the median
of `learn_windows` windows, learned from windows at least `learn_s` / `learn_windows` apart and then frozen; when their median
absolute deviation, scaled to σ, exceeds `learn_spread_pct` of the median, learning begins anew: what is not steady is no
baseline.

Gaps and irregular sampling: a window whose samples are not 1/`rate_hz` ± `jitter` apart is given up, and the next begins at
the sample after the gap; one whose mean rate is more than 2 % off is not judged. Both are counted (`windows_broken`, in the
evidence). A bad reading is as if it had not been sent, so it breaks its window. Frequencies are told by the measured rate;
the bins of a band are those of the declared one.

Resolution is `rate_hz` / N. State: at most 1,024 samples, 8.6 KB a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import ceil, floor, isfinite, sqrt
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Progress, Rows, Segments
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.walk import Found, Readings
from citynet_rules.rule import Delay, Rule, microseconds
from citynet_rules.transition import NONE_US, Event

SAMPLES_MAX = 1024
LEARN_MAX = 32
RATE_OFF_MAX = 0.02
_ROUND_OFF = 2.0**-48  # of the largest sample: below it there is nothing but rounding
SIGMA_OF_MAD = 1.4826
_OWN = (
    ("begin_us", "<i8"),
    ("newest_us", "<i8"),
    ("fill", "<i8"),
    ("broken", "<i8"),
    ("baseline", "<f8"),
    ("kept_us", "<i8"),
    ("learned", "<i8"),
    ("learn", "<f8", (LEARN_MAX,)),
    ("samples", "<f8", (SAMPLES_MAX,)),
)
STATE = state_of(*_OWN)
LATCH_NAMES = STATE.names[len(_OWN) :] if STATE.names else ()


class SpectrumRule(GradedRule):
    """A rule of kind `spectrum`; levels in `unit` (`rms`) or % of the baseline (`shift`), `rms_min` in `unit`."""

    measure: Literal["rms", "shift"]
    rate_hz: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    samples: int = Field(SAMPLES_MAX, ge=8, le=SAMPLES_MAX, multiple_of=2)
    low_hz: float = Field(ge=0, allow_inf_nan=False)
    high_hz: float = Field(gt=0, allow_inf_nan=False)
    jitter: float = Field(0.25, gt=0, lt=0.5)
    direction: Literal["either", "up", "down"] = "either"
    baseline_hz: float | None = Field(None, gt=0, allow_inf_nan=False)
    learn_windows: int = Field(15, ge=1, le=LEARN_MAX)
    learn_s: Delay = 0.0
    learn_spread_pct: float = Field(5.0, gt=0, le=100)
    peak_share: float = Field(0.25, ge=0, le=1)
    rms_min: float = Field(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _complete(self) -> SpectrumRule:
        first, last = self.bins
        need = 3 if self.measure == "shift" else 1
        if self.high_hz > self.rate_hz / 2:
            raise ValueError(f"high_hz {self.high_hz:g} is above half of rate_hz, {self.rate_hz / 2:g}")
        if last - first + 1 < need:
            step = self.rate_hz / self.samples
            raise ValueError(f"low_hz {self.low_hz:g} to high_hz {self.high_hz:g}: {need} bins of {step:g} Hz at least")
        learning = {"direction", "baseline_hz", "learn_windows", "learn_s", "learn_spread_pct", "peak_share", "rms_min"}
        if self.measure == "rms" and (strange := sorted(self.model_fields_set & learning)):
            raise ValueError(f"measure rms takes no {', '.join(strange)}")
        if self.baseline_hz is not None and not self.low_hz <= self.baseline_hz <= self.high_hz:
            raise ValueError(f"baseline_hz {self.baseline_hz:g} lies outside the band")
        return self

    @property
    def bins(self) -> tuple[int, int]:
        """First and last bin of the band; the mean is in none."""
        per_hz = self.samples / self.rate_hz
        return max(1, ceil(self.low_hz * per_hz - 1e-9)), floor(self.high_hz * per_hz + 1e-9)


class Learning(NamedTuple):
    """`baseline` (0: not known), time of the newest window that was learned, its and the others' frequencies."""

    baseline: float
    kept_us: int
    frequencies: tuple[float, ...]


class SpectrumState(NamedTuple):
    """The window under way, when it began and its newest sample came; windows given up; the baseline; the latch."""

    begin_us: int
    last_us: int
    samples: tuple[float, ...]
    broken: int
    learning: Learning
    latch: LimitState


class Look(NamedTuple):
    """What a window shows: band RMS in the unit of its samples, dominant frequency in bins (None: there is none)."""

    rms: float
    bin: float | None


@cache
def _hann(count: int) -> F64:
    return 0.5 * (1 - np.cos(2 * np.pi * np.arange(count) / count))


def amplitudes(samples: F64) -> F64:
    """|X(k)| of a window without its line, float64 (N/2 + 1,)."""
    count = len(samples)
    place = np.arange(count) - (count - 1) / 2
    slope = (place * samples).sum() / (count * (count * count - 1) / 12)
    straight = samples - samples.mean() - slope * place
    found: F64 = np.abs(np.fft.rfft(straight * _hann(count)))
    return found


def mean_squares(size: F64, count: int) -> F64:
    """P(k) of `amplitudes` of `count` samples."""
    power = size * size * (2 / (count * (count * 3 / 8)))
    power[0] /= 2
    power[-1] /= 2
    return power


def look(samples: F64, first: int, last: int, peak_share: float) -> Look:
    """Judge a window by its bins `first` to `last`."""
    with np.errstate(all="ignore"):
        size = amplitudes(samples)
        power = mean_squares(size, len(samples))
        whole = float(power[first : last + 1].sum())
        if not isfinite(whole) or whole <= (_ROUND_OFF * float(np.abs(samples).max())) ** 2:
            return Look(sqrt(whole) if isfinite(whole) else whole, None)
        top = first + int(np.argmax(power[first : last + 1]))
        peak = float(power[max(top - 1, 0) : top + 2].sum())
        if top == len(power) - 1 or peak < peak_share * whole:
            return Look(sqrt(whole), None)
        side = 1 if size[top + 1] >= size[top - 1] else -1
        alpha = float(size[top + side] / size[top])
        return Look(sqrt(whole), top + side * (2 * alpha - 1) / (alpha + 1))


class SpectrumMachine:
    """One spectrum rule."""

    def __init__(self, rule: SpectrumRule) -> None:
        self.rule = rule
        self.limits = limits_of(rule)
        self.first, self.last = rule.bins
        interval_us = 1_000_000 / rule.rate_hz
        self.nearest_us = ceil(interval_us * (1 - rule.jitter))
        self.farthest_us = floor(interval_us * (1 + rule.jitter))
        self.apart_us = microseconds(rule.learn_s) // rule.learn_windows

    def initial(self) -> SpectrumState:
        learning = Learning(self.rule.baseline_hz or 0.0, NONE_US, ())
        return SpectrumState(NONE_US, NONE_US, (), 0, learning, limit.initial(self.limits))

    def step(self, state: SpectrumState, time_us: int, value: float, quality: int) -> tuple[SpectrumState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        if state.samples and not self.nearest_us <= time_us - state.last_us <= self.farthest_us:
            state = state._replace(samples=(), broken=state.broken + 1)
        begin_us = state.begin_us if state.samples else time_us
        samples = (*state.samples, value)
        if len(samples) < self.rule.samples:
            return state._replace(begin_us=begin_us, last_us=time_us, samples=samples), []
        broken, learning, latch, found = self.judge(
            begin_us, time_us, np.array(samples), state.broken, state.learning, state.latch
        )
        return SpectrumState(NONE_US, NONE_US, (), broken, learning, latch), found

    def judge(
        self, begin_us: int, end_us: int, samples: F64, broken: int, learning: Learning, latch: LimitState
    ) -> tuple[int, Learning, LimitState, list[Found]]:
        """A window is full."""
        rule = self.rule
        rate_hz = (rule.samples - 1) * 1_000_000 / (end_us - begin_us)
        if abs(rate_hz / rule.rate_hz - 1) > RATE_OFF_MAX:
            return broken + 1, learning, latch, []
        seen = look(samples, self.first, self.last, rule.peak_share)
        more: dict[str, Any] = {"window_begin_us": begin_us, "rms": seen.rms, "windows_broken": broken}
        mild = self.limits.close[0]
        if rule.measure == "rms":
            latch, found = grade(self.limits, latch, end_us, seen.rms, (0.0, mild))
            return broken, learning, latch, [each._replace(more=more) for each in found]
        if seen.bin is None or seen.rms < rule.rms_min:
            return broken, learning, latch, []
        frequency = seen.bin * rate_hz / rule.samples
        if learning.baseline == 0:
            return broken, self._learned(learning, end_us, frequency), latch, []
        base = learning.baseline
        off = 100 * (frequency - base) / base
        score = abs(off) if rule.direction == "either" else off if rule.direction == "up" else -off
        band = (base * (1 - mild / 100), base * (1 + mild / 100))
        latch, found = grade(self.limits, latch, end_us, score, band)
        more |= {"dominant_hz": frequency, "baseline_hz": base}
        return broken, learning, latch, [each._replace(more=more) for each in found]

    def _learned(self, learning: Learning, time_us: int, frequency: float) -> Learning:
        """With one more window; the baseline once there are enough of them and they agree."""
        rule = self.rule
        if learning.frequencies and time_us - learning.kept_us < self.apart_us:
            return learning
        found = (*learning.frequencies, frequency)
        if len(found) < rule.learn_windows:
            return Learning(0.0, time_us, found)
        middle = median(found)
        sigma = SIGMA_OF_MAD * median(abs(each - middle) for each in found)
        is_steady = middle > 0 and 100 * sigma <= rule.learn_spread_pct * middle
        return Learning(middle if is_steady else 0.0, NONE_US, ())

    def pack(self, state: SpectrumState) -> tuple[Any, ...]:
        """A full row, by which the fresh ones are made."""
        learning = state.learning
        columns = (state.begin_us, state.last_us, len(state.samples), state.broken)
        taught = (*learning.frequencies, *(0.0,) * (LEARN_MAX - len(learning.frequencies)))
        samples = (*state.samples, *(0.0,) * (SAMPLES_MAX - len(state.samples)))
        known = (learning.baseline, learning.kept_us, len(learning.frequencies), taught, samples)
        return (*columns, *known, *limit.pack(self.limits, state.latch))

    def unpack(self, row: tuple[Any, ...]) -> SpectrumState:
        begin_us, last_us, fill, broken, baseline, kept_us, learned, learn, samples = row[: len(_OWN)]
        learning = Learning(baseline, kept_us, tuple(learn[:learned].tolist()))
        latch = limit.unpack(self.limits, row[len(_OWN) :])
        return SpectrumState(begin_us, last_us, tuple(samples[:fill].tolist()), broken, learning, latch)


class SpectrumKernel:
    """All spectrum rules at once: samples that only fill their windows, or break them, are put there together, pairs with a
    full window are taken one by one, in pieces of windows."""

    def __init__(self, rules: Sequence[SpectrumRule]) -> None:
        self._machines = [SpectrumMachine(rule) for rule in rules]
        self._fresh: Rows = np.array([machine.pack(machine.initial()) for machine in self._machines], STATE)
        self._size: I64 = np.array([rule.samples for rule in rules], np.int64)
        self._nearest_us: I64 = np.array([machine.nearest_us for machine in self._machines], np.int64)
        self._farthest_us: I64 = np.array([machine.farthest_us for machine in self._machines], np.int64)

    def fresh(self, rule: I32) -> Rows:
        return self._fresh[rule]

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """Windows are judged at their last sample only."""
        return []

    def feed(self, pairs: Pairs, segments: Segments) -> list[Event]:
        pair, position = pairs.of(segments.slot)
        readings = Readings.of(segments)
        some = (readings.stop - readings.start)[position] > 0 if len(pair) else np.zeros(0, np.bool_)
        pair, position = pair[some], position[some]
        if not len(pair):
            return []
        full = ~self._filled(pairs, pair, readings, position)
        events: list[Event] = []
        for p, s in zip(pair[full].tolist(), position[full].tolist(), strict=True):
            rows = slice(int(readings.start[s]), int(readings.stop[s]))
            events += self._take(pairs, p, readings.time_us[rows], readings.value[rows])
        return events

    def _filled(self, pairs: Pairs, pair: I64, readings: Readings, position: I64) -> Bools:
        """Take the samples of pairs that fill no window with them, giving up what is torn; which pairs these are."""
        state, rule = pairs.state, pairs.rule[pair]
        start, count = readings.start[position], (readings.stop - readings.start)[position]
        of = np.repeat(np.arange(len(pair)), count)
        rank = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
        row = start[of] + rank
        time_us, fill = readings.time_us[row], state["fill"][pair]
        since_us = time_us - np.where(rank > 0, readings.time_us[row - (rank > 0)], state["newest_us"][pair][of])
        torn = (since_us < self._nearest_us[rule][of]) | (since_us > self._farthest_us[rule][of])
        torn &= (rank > 0) | (fill[of] > 0)
        calm = self._short(rule, fill, of, rank, torn)
        from_rank = np.zeros(len(pair), np.int64)  # where the window begins that is under way at the end
        from_rank[of[torn]] = rank[torn]  # of several the last
        begins = calm & ((np.bincount(of, torn, len(pair)) > 0) | (fill == 0))
        if (gone := begins & (fill > 0)).any():
            state["samples"][pair[gone], : fill[gone].max()] = 0
        state["broken"][pair[calm]] += np.bincount(of, torn, len(pair))[calm].astype(np.int64)
        before = np.where(begins, 0, fill)
        kept = calm[of] & (rank >= from_rank[of])
        into = before[of[kept]] + (rank - from_rank[of])[kept]
        state["samples"][pair[of[kept]], into] = readings.value[row[kept]]
        state["begin_us"][pair[begins]] = readings.time_us[(start + from_rank)[begins]]
        state["newest_us"][pair[calm]] = readings.time_us[(start + count - 1)[calm]]
        state["fill"][pair[calm]] = (before + count - from_rank)[calm]
        return calm

    def _short(self, rule: I32, fill: I64, of: I64, rank: I64, torn: Bools) -> Bools:
        """Of which pairs no run of samples, the first with what was there, is a whole window."""
        first = np.flatnonzero(torn | (rank == 0))
        length = np.diff(first, append=len(of))
        length += np.where(torn[first], 0, fill[of[first]] * (rank[first] == 0))
        short: Bools = np.ones(len(rule), np.bool_)
        short[of[first[length >= self._size[rule[of[first]]]]]] = False
        return short

    def _take(self, pairs: Pairs, pair: int, time_us: I64, value: F64) -> list[Event]:
        """The samples of one pair, window by window."""
        rule, slot = int(pairs.rule[pair]), int(pairs.slot[pair])
        machine, row = self._machines[rule], pairs.state[pair]
        state = machine.unpack(row.item())
        window: F64 = np.array(state.samples)
        begin_us, last_us, broken = state.begin_us, state.last_us, state.broken
        learning, latch, events = state.learning, state.latch, list[Event]()
        since_us = np.diff(time_us, prepend=last_us)
        ends = np.flatnonzero((since_us < machine.nearest_us) | (since_us > machine.farthest_us)).tolist()
        ends, place = [*ends, len(time_us)], 0
        while place < len(time_us):
            while ends[0] < place or (ends[0] == place and not len(window)):
                ends.pop(0)
            if ends[0] == place:
                window, broken = window[:0], broken + 1
                continue
            stop = min(ends[0], place + machine.rule.samples - len(window))
            begin_us = begin_us if len(window) else int(time_us[place])
            window, last_us, place = np.concatenate([window, value[place:stop]]), int(time_us[stop - 1]), stop
            if len(window) == machine.rule.samples:
                broken, learning, latch, found = machine.judge(begin_us, last_us, window, broken, learning, latch)
                events += [Event(rule, slot, *change) for change in found]
                window, begin_us, last_us = window[:0], NONE_US, NONE_US
        self._put(row, machine, window, SpectrumState(begin_us, last_us, (), broken, learning, latch))
        return events

    def _put(self, row: np.void, machine: SpectrumMachine, window: F64, state: SpectrumState) -> None:
        """Write a pair's row; samples are left where no window is under way, and zero beyond it."""
        row["begin_us"], row["newest_us"], row["fill"], row["broken"] = (
            state.begin_us,
            state.last_us,
            len(window),
            state.broken,
        )
        row["baseline"], row["kept_us"] = state.learning.baseline, state.learning.kept_us
        row["learned"] = len(state.learning.frequencies)
        row["learn"][:] = 0
        row["learn"][: len(state.learning.frequencies)] = state.learning.frequencies
        row["samples"][:] = 0
        row["samples"][: len(window)] = window
        for name, column in zip(LATCH_NAMES, limit.pack(machine.limits, state.latch), strict=True):
            row[name] = column


class SpectrumKind:
    """Registration of the kind."""

    name = "spectrum"
    model: type[Rule] = SpectrumRule
    state = STATE
    learned: tuple[str, ...] = ("broken", "baseline", "kept_us", "learned", "learn")
    templates = (
        "{device} 的 {metric} 频谱指标为 {value} {unit}，限值 {limit} {unit}，自 {since} 起。",
        "spectrum of {metric} of {device}: {value} {unit}, limit {limit} {unit}, since {since}.",
    )

    def facts(self, rule: SpectrumRule) -> dict[str, Any]:
        own = {"rate_hz", "low_hz", "high_hz", "measure"}
        if rule.measure == "shift":
            own |= {"direction", "learn_windows", "learn_s", "peak_share", "rms_min"}
        return {
            "unit": rule.unit if rule.measure == "rms" else "%",
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "gap_s_max": gap_s_max(rule),
            "window_samples": rule.samples,
            **{name: getattr(rule, name) for name in sorted(own)},
        }

    def kernel(self, rules: Sequence[SpectrumRule]) -> Kernel:
        return SpectrumKernel(rules)
