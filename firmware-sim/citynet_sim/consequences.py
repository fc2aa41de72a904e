"""What the models make of staged rain: the manholes above which water will stand, as entries of the truth.

Nothing here acts upon a model; the rain does. But whoever scores alerts must know that these are right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from citynet_sim.city import City, Device
from citynet_sim.faults import EVENT, Fault
from citynet_sim.kinds import KINDS, manhole
from citynet_sim.noise import F64
from citynet_sim.world import World

# The levels of the shipped rule `drainage-ponding`, cm; a margin keeps noise from deciding.
_LEVELS = (("red", 25.0), ("orange", 15.0), ("yellow", 10.0), ("blue", 5.0))
_MARGIN_CM = 0.8
_STEP_S = 30.0
_AFTER_S = 3 * 3600.0


def ponding(world: World, city: City, faults: Sequence[Fault]) -> list[Fault]:
    """One entry for every staged rain and colour that it brings about; devices that a fault names anyway are left out."""
    named = {name for fault in faults if fault.channel == "ponding_cm" for name in fault.devices}
    found: list[Fault] = []
    rains = [fault for fault in faults if fault.layer == EVENT and fault.rain_mm_h > 0.0]
    for fault in sorted(rains, key=lambda one: (-one.rain_mm_h, one.start_us, one.id)):  # the strongest is the cause
        t_s = np.arange(fault.start_us / 1e6, fault.end_us / 1e6 + _AFTER_S, _STEP_S)
        wet = [d for d in city.of_kind("manhole") if fault.district in ("", d.district) and d.name not in named]
        depth = {device: _depth_cm(world, device, t_s) for device in wet}
        for number, (level, threshold_cm) in enumerate(_LEVELS):
            above = _LEVELS[number - 1][1] if number else np.inf
            struck = [d for d in wet if threshold_cm + _MARGIN_CM <= depth[d].max() < above + _MARGIN_CM]
            found += [_entry(fault, level, threshold_cm, struck, depth, t_s)] if struck else []
            named.update(device.name for device in struck)
    return found


def _depth_cm(world: World, device: Device, t_s: F64) -> F64:
    row = KINDS["manhole"].row("ponding_cm")
    found: F64 = manhole.KIND.truth(world, device, t_s)[row]
    return found


def _entry(
    fault: Fault, level: str, threshold_cm: float, struck: list[Device], depth: dict[Device, F64], t_s: F64
) -> Fault:
    wet = np.any(np.stack([depth[device] >= threshold_cm for device in struck]), axis=0)
    start_s, end_s = t_s[wet][0], t_s[wet][-1]
    return Fault(
        f"{fault.id}-ponding-{level}", EVENT, "ponding", "drainage", "", "ponding_cm",
        tuple(device.name for device in struck), tuple(round(float(depth[device].max()), 1) for device in struck),
        fault.district, round(start_s * 1e6), round(end_s * 1e6), 1e-3, 1e-3, f"follows {fault.id}",
        "drainage-ponding", level,
    )  # fmt: skip
