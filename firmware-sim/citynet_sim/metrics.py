"""What the city's sensors measure: names, units, ranges and how each instrument distorts the truth.

Units are UCUM codes. ``%`` carries no basis in UCUM, so the basis is in the metric's name (``ch4_lel``,
``o2_vol``). Ranges are those of common field instruments; noise figures are typical of the instrument class,
not of one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citynet_sim.noise import F64


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity of a device.

    A reading is a whole number of steps of ``1 / steps_per_unit`` inside ``low``..``high``: beyond, the
    instrument is saturated. Noise is an AR(1) process of standard deviation `sigma` (in the metric's unit) and
    correlation time `tau_s`; where `quiet_at_zero`, a true zero is reported as zero (a dry gauge is silent),
    because the instrument has a dead band there. `drift` is the standard deviation of its zero, which wanders
    over weeks; after power came on it reads too high by `warm_up`, which fades within minutes.
    """

    name: str
    unit: str
    low: float
    high: float
    steps_per_unit: int
    sigma: float
    tau_s: float
    quiet_at_zero: bool = False
    drift: float = 0.0
    warm_up: float = 0.0


BATTERY = Metric("battery_pct", "%", 0.0, 100.0, 1, 0.2, 3600.0)


def measure(metrics: tuple[Metric, ...], truth: F64, error: F64) -> F64:
    """What the instruments report of the truth: their error added, clipped to the range, rounded to the resolution.

    `truth` and `error` are (metrics, n), both in the metric's unit. A reading is the float64 nearest to
    ``steps / steps_per_unit``, hence exactly what its shortest decimal form says.
    """
    low, high, scale = np.array([[m.low, m.high, m.steps_per_unit] for m in metrics]).T[:, :, None]
    quiet = np.array([m.quiet_at_zero for m in metrics])[:, None] & (truth <= 0.0)
    raw = np.clip(np.where(quiet, truth, truth + error), low, high)
    # Adding 0.0 turns a negative zero into zero: a sensor knows only one.
    reported: F64 = np.rint(raw * scale) / scale + 0.0
    return reported
