"""What sensor faults do to the readings of one device. Pure: clean columns in, distorted columns out.

Faults compose in a fixed order: what shifts a value comes before what jumps, and what holds it comes last; silence removes
samples, a wrong clock changes their stamps. All values stay within the instrument's range and on its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from citynet_sim.faults import Fault
from citynet_sim.metrics import Metric
from citynet_sim.noise import F64, lattice

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

WARM_UP_S = 300.0  # time constant of the error after power came on
_SPIKE_BEYOND = 1.645  # a standard normal number is beyond it in one of twenty
SILENT = ("dead", "reboot", "power-cut")
ORDER = ("bias", "drift", "unit-slip", "spike", "stuck")


def warm_up(metrics: tuple[Metric, ...], t_s: F64, faults: Sequence[Fault]) -> F64:
    """Error after the power came back, (metrics, n) in the metric's unit: the warm-up of each, fading since the last return."""
    error = np.zeros((len(metrics), len(t_s)))
    for fault in faults:
        if fault.kind in SILENT:
            since = t_s - fault.end_us / 1e6
            fading = np.where(since >= 0.0, np.exp(-np.maximum(since, 0.0) / WARM_UP_S), 0.0)
            error += np.array([metric.warm_up for metric in metrics])[:, None] * fading
    return error


def distort(
    seed: int, name: str, metrics: tuple[Metric, ...], step: I64, t_s: F64, clean: F64, faults: Sequence[Fault],
    held: Callable[[Fault, int], float],
) -> F64:  # fmt: skip
    """The readings with all value faults; `clean` is (metrics, n) for the steps `step` at `t_s`.

    `held(fault, row)` gives the reading at which a stuck metric stays.
    """
    rows = {metric.name: row for row, metric in enumerate(metrics)}
    found = clean
    for kind in ORDER:
        for fault in faults:
            if fault.kind != kind or fault.channel not in rows:
                continue
            row = rows[fault.channel]
            found = found if found is not clean else clean.copy()
            during = fault.is_during(t_s) > 0.0
            value = _value(seed, name, fault, step, t_s, found[row], held, row)
            found[row] = np.where(during, _reported(metrics[row], value), found[row])
    return found


def _value(
    seed: int, name: str, fault: Fault, step: I64, t_s: F64, value: F64, held: Callable[[Fault, int], float], row: int
) -> F64:
    peak = fault.peaks[0]
    if fault.kind == "bias":
        return value + peak
    if fault.kind == "drift":
        return value + peak * (t_s - fault.start_us / 1e6) / ((fault.end_us - fault.start_us) / 1e6)
    if fault.kind == "unit-slip":
        return value * peak
    if fault.kind == "spike":
        draw = lattice(seed, f"spike/{fault.id}/{name}", step)
        return np.where(draw > _SPIKE_BEYOND, value + peak, value)
    return np.full_like(value, held(fault, row))


def _reported(metric: Metric, value: F64) -> F64:
    reported: F64 = (
        np.rint(np.clip(value, metric.low, metric.high) * metric.steps_per_unit) / metric.steps_per_unit + 0.0
    )
    return reported


def is_silent(t_s: F64, faults: Sequence[Fault]) -> Bools:
    """Where the device says nothing at all."""
    silent = np.zeros(len(t_s), bool)
    for fault in faults:
        if fault.kind in SILENT:
            silent |= fault.is_during(t_s) > 0.0
    return silent


def stamps_us(at_us: I64, faults: Sequence[Fault]) -> I64:
    """What the device's clock says at the moments `at_us`, on whole milliseconds."""
    stamps = at_us
    for fault in faults:
        if fault.kind == "clock-skew":
            skew_us = round(fault.peaks[0] * 1e3) * 1000
            stamps = stamps + np.where(fault.is_during(at_us / 1e6) > 0.0, skew_us, 0)
    return stamps
