"""What a series usually shows at this time of day, and how much of it the time of day explains."""

from __future__ import annotations

import numpy as np

from citynet.batch import F64

BINS = 48
"""Half hours: a day's shape is followed, and a five-minute series puts six rows into each bin."""
DAY_S = 86_400.0
DAY_GAIN = 0.3
"""Weight of the newest day; the mean life of a day in the profile is about three days."""
EXPLAINED_GAIN = 0.001
EXPLAINED_MIN = 0.5
DAYS_MIN = 2


class DailyProfile:
    """Mean by time of day, each finished day averaged into it with weight `DAY_GAIN` (more while there are few).

    The share explained is 1 − (mean square of the residual) / (variance), both exponentially weighted over about 1,000 rows.
    A residual counts as evident where that share is at least `EXPLAINED_MIN` and its bin has seen `DAYS_MIN` days.
    """

    def __init__(self) -> None:
        self._mean = np.zeros(BINS).tolist()
        self._days = np.zeros(BINS).tolist()
        self._sum = np.zeros(BINS).tolist()
        self._rows = np.zeros(BINS).tolist()
        self._day = np.zeros(BINS).tolist()
        self._level = 0.0
        self._variance = 0.0
        self._unexplained = 0.0
        self._seen = 0.0

    def residual(self, time_s: float, value: float) -> tuple[float, bool] | None:
        """Difference from the profile before this value is learnt, and whether the profile is evident; none on a first day."""
        day, second = divmod(time_s, DAY_S)
        place = min(int(second / DAY_S * BINS), BINS - 1)  # a tiny negative time is a whole day after rounding
        if self._rows[place] and self._day[place] != day:
            self._close_day(place)
        self._day[place] = day
        found = None
        if self._days[place]:
            rest = value - self._mean[place]
            self._judge(value, rest)
            evident = self._days[place] >= DAYS_MIN and self._unexplained <= (1 - EXPLAINED_MIN) * self._variance
            found = rest, evident and self._variance > 0
        self._sum[place] += value
        self._rows[place] += 1
        return found

    def _close_day(self, place: int) -> None:
        self._days[place] += 1
        gain = max(DAY_GAIN, 1 / self._days[place])
        self._mean[place] += gain * (self._sum[place] / self._rows[place] - self._mean[place])
        self._sum[place] = self._rows[place] = 0.0

    def _judge(self, value: float, rest: float) -> None:
        self._level += (EXPLAINED_GAIN if self._seen else 1.0) * (value - self._level)
        self._seen = 1.0
        self._variance += EXPLAINED_GAIN * ((value - self._level) ** 2 - self._variance)
        self._unexplained += EXPLAINED_GAIN * (rest**2 - self._unexplained)

    def save(self) -> F64:
        """The state in one array."""
        scalars = [self._level, self._variance, self._unexplained, self._seen]
        return np.array([*self._mean, *self._days, *self._sum, *self._rows, *self._day, *scalars], np.float64)

    def load(self, state: F64) -> None:
        """Replace the state by one that `save` gave."""
        columns = state[: 5 * BINS].reshape(5, BINS).tolist()
        self._mean, self._days, self._sum, self._rows, self._day = columns
        self._level, self._variance, self._unexplained, self._seen = state[5 * BINS :].tolist()
