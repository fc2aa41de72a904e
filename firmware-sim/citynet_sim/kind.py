"""What a kind of device is: its metrics, its physics, where it stands and how it speaks. `kinds` holds the table of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from citynet.formats import THINGSBOARD
from citynet_sim import places
from citynet_sim.metrics import Metric
from citynet_sim.noise import F64

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of device.

    `truth(world, device, t_s)` gives the true values, (metrics, n) for times (n,) in s since 1970, as a pure
    function. `per_100k` devices stand in a city per 100,000 inhabitants; `place` says where. `wire` is the
    content type of its messages, `period_s` the usual time between two of them.
    """

    name: str
    domain: str
    prefix: str
    per_100k: float
    metrics: tuple[Metric, ...]
    truth: Callable[[World, Device, F64], F64]
    period_s: float = 10.0
    wire: str = THINGSBOARD
    place: places.Place = places.corner

    def row(self, metric: str) -> int:
        """Position of a metric among the kind's. KeyError if it has none of that name."""
        for row, candidate in enumerate(self.metrics):
            if candidate.name == metric:
                return row
        raise KeyError(metric)
