"""One reading, for the edges of the system. Inside, readings travel as columns (`citynet.batch`)."""

from __future__ import annotations

import msgspec

from citynet.quality import GOOD


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What a sensor said once.

    `time_us` is event time in microseconds since the Unix epoch (UTC); `value` is in the series' unit;
    `quality` is the code of `citynet.quality`.
    """

    device: str
    metric: str
    time_us: int
    value: float
    quality: int = GOOD

    @property
    def name(self) -> str:
        """The series' name on the wire: ``device/metric``."""
        return f"{self.device}/{self.metric}"
