"""The linear reservoir: what a store does that empties at a rate proportional to its content.

S' = inflow - S/K. For a pulse of constant inflow the outflow is 1 - exp(-(t - start)/K) of it while it lasts
and decays as exp(-(t - end)/K) afterwards. Hydrology uses it for runoff (Chow, Maidment and Mays, Applied
Hydrology, 1988, section 8.5); the same balance holds for gas in a well-mixed volume with constant air
exchange.
"""

from __future__ import annotations

import numpy as np

from citynet_sim.noise import F64


def response(t_s: F64, start_s: float, end_s: float, rise_s: float, decay_s: float) -> F64:
    """Outflow of a unit pulse from `start_s` to `end_s`; dimensionless, 0..1, shape of `t_s`.

    `rise_s` and `decay_s` are the time constants (s) while the pulse lasts and after it; they are equal for a
    reservoir whose outlet does not change and differ where it does (a leaking well that is ventilated once
    the leak is shut).
    """
    rising = 1.0 - np.exp(-np.clip(t_s - start_s, 0.0, end_s - start_s) / rise_s)
    fading: F64 = np.exp(-np.maximum(t_s - end_s, 0.0) / decay_s)
    return rising * fading
