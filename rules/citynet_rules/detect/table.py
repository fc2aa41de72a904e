"""Alarms of a table of sensors: each one predicted from the others and from the recent past, by a relation learnt at the start.

Method, figures and what did not help: docs/detectors.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from citynet.batch import F64, I64, Bools
from citynet.errors import CitynetError

SENSORS_MAX = 256
WARMUP_ROWS_MIN = 50
KNOWN_SHARE_MIN = 0.1
"""A sensor needs values in this share of the warm-up's rows."""
LAGS = 2
RIDGE = 0.01
FOLDS = 5
LEARN_MAX = 6.0
"""Robust z up to which a value is believed while learning."""
JUDGE_MAX = 20.0
GAINS = (1.0, 0.2)
"""Weights of the newest residual: one row by itself, and a persistent shift over about ten."""
FALSE_ALARM_RATE = 1e-4
"""Rows of a table like the warm-up that may exceed the limits, as a share."""
TAIL = 0.05
SPREAD_MIN = 1e-3
HOLD_ROWS = 5
RATIO_MAX = 1e6
VALUE_MAX = 1e150
"""Values beyond count as this one, so that squares stay finite."""
ALARM = 0.5


@dataclass(frozen=True)
class Scale:
    """Which columns are judged (`used`, indices), their centre and spread, both robust, and why others are not (`ignored`)."""

    used: I64
    centre: F64
    spread: F64
    ignored: dict[int, str]

    def z(self, rows: F64) -> F64:
        """Robust z of the judged columns, bounded by ±`JUDGE_MAX`; nan where there is no finite value."""
        values = np.where(np.isfinite(rows[:, self.used]), rows[:, self.used], np.nan)
        with np.errstate(over="ignore"):
            return np.clip((values - self.centre) / self.spread, -JUDGE_MAX, JUDGE_MAX)


@dataclass(frozen=True)
class Model:
    """What the warm-up taught.

    Attributes:
        scale: columns, centres, spreads.
        precision: (p, p), inverse of the ridge-regularised second moments of [z now, 1, z one row ago, z two rows ago].
        sigma: (gains, sensors), spread of the smoothed residuals on rows left out of the fit.
        limit: (gains,), largest |residual| / sigma of any sensor that is still normal.
        last: (LAGS, sensors), newest rows of the warm-up, oldest first.
    """

    scale: Scale
    precision: F64
    sigma: F64
    limit: F64
    last: F64


def scale_of(rows: F64) -> Scale:
    """Median and spread of every column that varies and has enough values.

    Raises:
        CitynetError: no column to judge, too many of them, or too few rows.
    """
    if len(rows) < WARMUP_ROWS_MIN:
        raise CitynetError(f"warm-up of {len(rows)} rows; at least {WARMUP_ROWS_MIN} are needed")
    values = np.clip(np.where(np.isfinite(rows), rows, np.nan), -VALUE_MAX, VALUE_MAX)
    used, centre, spread = [], [], []
    ignored: dict[int, str] = {}
    for number, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(known) < KNOWN_SHARE_MIN * len(rows):
            ignored[number] = f"{len(known)} values in a warm-up of {len(rows)} rows"
            continue
        median, width = centre_and_width(known)
        if width > 1e-9 * abs(median):
            used.append(number)
            centre.append(median)
            spread.append(width)
        else:
            ignored[number] = "constant during the warm-up"
    if not used:
        raise CitynetError("no column varies during the warm-up: nothing to learn")
    if len(used) > SENSORS_MAX:
        raise CitynetError(f"{len(used)} columns vary; at most {SENSORS_MAX} can be judged together")
    return Scale(np.array(used, np.int64), np.array(centre), np.array(spread), ignored)


def centre_and_width(values: F64) -> tuple[float, float]:
    """Median, and IQR / 1.349; where the quartiles hide most of what happens (a pump that seldom runs), the standard deviation.

    For that, values beyond the 0.5 % and 99.5 % quantiles count as those: a spike in the warm-up must not make a sensor deaf.
    """
    low, q1, median, q3, high = np.quantile(values, [0.005, 0.25, 0.5, 0.75, 0.995]).tolist()
    width = (q3 - q1) / 1.349
    near = np.clip(values, low, high) if q3 > q1 else values
    deviation = float(np.std(near))
    return median, width if width > 0.1 * deviation else deviation


def learn(rows: F64) -> Model:
    """A model from the rows of the warm-up (n, columns; nan where a cell is empty).

    Limits come from residuals of blocks left out of the fit, so a table that drifts slowly during the warm-up gets wide ones.

    Raises:
        CitynetError: as `scale_of`.
    """
    scale = scale_of(rows)
    z = np.clip(scale.z(rows), -LEARN_MAX, LEARN_MAX)
    missing = np.isnan(z)
    before = np.zeros((LAGS, z.shape[1]))
    full = held(z)
    if missing.any():
        full = fill(z, before, precision_of(design(full, before)))
    columns = design(full, before)
    sigma, limit = calibrate(columns, ~missing)
    return Model(scale, precision_of(columns), sigma, limit, full[-LAGS:])


def held(z: F64) -> F64:
    """Gaps take the value before them; at the start the median, which is 0."""
    row = np.where(np.isnan(z), 0, np.arange(1, len(z) + 1)[:, None])
    joined = np.concatenate([np.zeros((1, z.shape[1])), z])
    return np.take_along_axis(joined, np.maximum.accumulate(row, 0), 0)


def design(z: F64, before: F64) -> F64:
    """Rows [z now, 1, z one row ago, z two rows ago]; `before` are the `LAGS` rows ahead of the first."""
    joined = np.concatenate([before, z])
    past = [joined[LAGS - lag : len(joined) - lag] for lag in range(1, LAGS + 1)]
    return np.hstack([z, np.ones((len(z), 1)), *past])


def precision_of(columns: F64) -> F64:
    """Inverse of the second moments with a ridge of `RIDGE` on the diagonal."""
    moments = columns.T @ columns / len(columns)
    return np.asarray(np.linalg.inv(moments + RIDGE * np.eye(len(moments))))


def residuals(columns: F64, precision: F64, sensors: int) -> F64:
    """Each sensor less its ridge prediction from all other columns, for all sensors at once.

    The coefficients of the regression of j on the rest are −P[j, k] / P[j, j] (Lauritzen, Graphical Models, 5.1.3), which holds
    for ridge regression with one penalty too.
    """
    return np.asarray(columns @ precision[:, :sensors] / np.diag(precision)[:sensors])


def fill(z: F64, before: F64, precision: F64) -> F64:
    """Replace gaps by their prediction from what is known in the row and the rows before; its residual is then 0."""
    gaps = np.isnan(z)
    if not gaps.any():
        return z
    done = np.concatenate([before, z])
    for row in np.flatnonzero(gaps.any(1)):
        missing = np.flatnonzero(gaps[row])
        now = done[row + LAGS]
        now[missing] = 0.0
        columns = np.concatenate([now, [1.0], *(done[row + LAGS - lag] for lag in range(1, LAGS + 1))])
        inner = precision[np.ix_(missing, missing)]
        now[missing] = np.clip(-np.linalg.solve(inner, precision[missing] @ columns), -JUDGE_MAX, JUDGE_MAX)
    return done[LAGS:]


def smoothed(rest: F64, gain: float, start: F64) -> F64:
    """Exponentially weighted mean of the residuals, row by row, from the state `start`."""
    out = np.empty_like(rest)
    state = start
    for row, values in enumerate(rest):
        state = state + gain * (values - state)
        out[row] = state
    return out


def calibrate(columns: F64, known: Bools) -> tuple[F64, F64]:
    """Spread by gain and sensor, and limit by gain, from contiguous blocks predicted by a model of the other blocks."""
    sensors = known.shape[1]
    edges = np.linspace(0, len(columns), FOLDS + 1).astype(np.int64)
    parts = []
    for start, stop in pairwise(edges.tolist()):
        others = np.delete(columns, np.s_[start:stop], 0)
        parts.append(residuals(columns[start:stop], precision_of(others), sensors))
    rest = np.concatenate(parts)
    sigmas, limits = [], []
    for gain in GAINS:
        smooth = smoothed(rest, gain, np.zeros(sensors))
        sigma = np.maximum(np.sqrt((smooth**2).sum(0) / known.sum(0)), SPREAD_MIN)
        sigmas.append(sigma)
        limits.append(tail_limit(np.abs(smooth / sigma).max(1), FALSE_ALARM_RATE / len(GAINS)))
    return np.array(sigmas), np.array(limits)


def tail_limit(statistic: F64, rate: float) -> float:
    """Level exceeded with probability `rate`, by an exponential tail above the 95 % quantile (peaks over threshold)."""
    threshold = float(np.quantile(statistic, 1 - TAIL))
    beyond = statistic[statistic > threshold]
    excess = float(np.mean(beyond - threshold)) if len(beyond) else 0.0
    return threshold + excess * float(np.log(TAIL / rate))


class TableDetector:
    """Judges rows after the warm-up; nothing is learnt from them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        sensors = len(model.scale.used)
        self._before = model.last
        self._state = np.zeros((len(GAINS), sensors))
        self._held = np.zeros(HOLD_ROWS)

    def feed(self, rows: F64) -> F64:
        """Severities (n, 0..1) of the next n rows; a row is an alarm from `ALARM` on.

        r is the largest |smoothed residual| / (sigma × limit) of any sensor in this row or the `HOLD_ROWS` before; the
        severity is r / (1 + r). A gap counts as what its row predicts.
        """
        if not len(rows):
            return np.zeros(0)
        model = self._model
        z = fill(model.scale.z(rows), self._before, model.precision)
        rest = residuals(design(z, self._before), model.precision, z.shape[1])
        self._before = np.concatenate([self._before, z])[-LAGS:]
        ratio = np.zeros(len(rows))
        for number, gain in enumerate(GAINS):
            smooth = smoothed(rest, gain, self._state[number])
            self._state[number] = smooth[-1]
            ratio = np.maximum(ratio, np.abs(smooth / model.sigma[number]).max(1) / model.limit[number])
        joined = np.concatenate([self._held, np.minimum(ratio, RATIO_MAX)])
        self._held = joined[-HOLD_ROWS:]
        held_ratio = np.lib.stride_tricks.sliding_window_view(joined, HOLD_ROWS + 1).max(1)
        return np.asarray(held_ratio / (1 + held_ratio))
