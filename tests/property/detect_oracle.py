"""The detectors again, written to be read: one row at a time, everything recomputed from the rows before it."""

from __future__ import annotations

import numpy as np

from citynet_rules.detect import ensemble, profile, table
from citynet_rules.detect.ensemble import MARGINS


def quantile(past: list[float], share: float) -> float:
    """Nearest rank."""
    return sorted(past)[int(share * (len(past) - 1) + 0.5)]


def features(values: list[float]) -> dict[str, float]:
    """Of the newest row, from all rows up to it."""
    padded = np.array([values[0]] * ensemble.LONG_ROWS + values)
    short, long = padded[-ensemble.SHORT_ROWS :], padded[-ensemble.LONG_ROWS :]
    return {"mean_short": float(short.mean()), "std_short": float(short.std()), "std_long": float(long.std())}


def daily(times: list[float], means: list[float]) -> list[tuple[float, bool] | None]:
    """Difference from the profile at every row, and whether the profile is evident there."""
    out: list[tuple[float, bool] | None] = []
    days: dict[int, dict[float, list[float]]] = {}
    judged: list[tuple[float, float]] = []
    for time_s, mean in zip(times, means, strict=True):
        day, second = divmod(time_s, profile.DAY_S)
        seen = days.setdefault(int(second / profile.DAY_S * profile.BINS), {})
        finished = [rows for each, rows in seen.items() if each != day]
        if finished:
            usual = 0.0
            for count, rows in enumerate(finished, 1):
                usual += max(profile.DAY_GAIN, 1 / count) * (sum(rows) / len(rows) - usual)
            judged.append((mean, mean - usual))
            evident = len(finished) >= profile.DAYS_MIN and explained(judged) >= profile.EXPLAINED_MIN
            out.append((mean - usual, evident))
        else:
            out.append(None)
        seen.setdefault(day, []).append(mean)
    return out


def explained(judged: list[tuple[float, float]]) -> float:
    """Share of the variance that the profile explains, newest rows counting more."""
    level = judged[0][0]
    variance = unexplained = 0.0
    for mean, rest in judged:
        level += profile.EXPLAINED_GAIN * (mean - level)
        variance += profile.EXPLAINED_GAIN * ((mean - level) ** 2 - variance)
        unexplained += profile.EXPLAINED_GAIN * (rest**2 - unexplained)
    return 1 - unexplained / variance if variance > 0 else -1.0


def novelty(past: list[float], value: float, name: str, floor: float) -> float:
    """Distance outside the tails by the spread, in units of the feature's margin."""
    past = past[-ensemble.MEMORY_ROWS :]
    if len(past) < ensemble.WARMUP_ROWS:
        return 0.0
    low, high = quantile(past, ensemble.TAIL), quantile(past, 1 - ensemble.TAIL)
    wide = quantile(past, 1 - ensemble.SPREAD_TAIL) - quantile(past, ensemble.SPREAD_TAIL)
    spread = max(wide, 0.05 * (high - low), floor)
    outside = max(value - high, low - value, 0.0)
    if outside == 0:
        return 0.0
    return min(outside / spread / MARGINS[name] if spread else np.inf, ensemble.RATIO_MAX)


def series_severity(times: list[float], values: list[float]) -> list[float]:
    """What `SeriesDetector` gives for finite rows that come without a break in one piece."""
    columns = [features(values[: row + 1]) for row in range(len(values))]
    rests = daily(times, [each["mean_short"] for each in columns])
    out: list[float] = []
    alarm = -ensemble.REFRACTORY_ROWS
    for row, now in enumerate(columns):
        past = {name: [each[name] for each in columns[:row]] for name in now}
        floor = ensemble.FLOOR * abs(quantile(past["mean_short"][-ensemble.MEMORY_ROWS :], 0.5)) if row else 0.0
        ratio = max(novelty(past[name], now[name], name, floor) for name in now)
        rest = rests[row]
        if rest is not None and rest[1]:
            before = [each[0] for each in rests[:row] if each is not None]
            ratio = max(ratio, novelty(before, rest[0], "daily", floor))
        severity = ratio / (1 + ratio)
        if row - alarm < ensemble.REFRACTORY_ROWS:
            severity /= 2
        elif severity >= ensemble.ALARM:
            alarm = row
        out.append(severity)
    return out


def ridge_residual(columns: np.ndarray, sensor: int, rows: np.ndarray) -> np.ndarray:
    """`rows` less the prediction of `sensor` from all other columns, by ridge regression on `columns`."""
    others = np.delete(np.arange(columns.shape[1]), sensor)
    x, y = columns[:, others], columns[:, sensor]
    weights = np.linalg.solve(x.T @ x / len(x) + table.RIDGE * np.eye(len(others)), x.T @ y / len(x))
    return np.asarray(rows[:, sensor] - rows[:, others] @ weights)
