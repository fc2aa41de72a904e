"""One interlock, pure: given readings and the passing of time, whether it is tripped, and why. Time is an argument.

    released --beyond the limit for on_delay_s, or stale--> tripped --clear for off_delay_s--> released

A latched one stays tripped until `reset`. `min_on_s` and `min_off_s` hold a state for a least time, so that a value at the
limit switches at most once in that time. The state at the start is on the safe side until the first reading says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from citynet_gateway.interlock_settings import InterlockSettings


class Cause(StrEnum):
    """Why an interlock changed."""

    START = "start"
    LIMIT = "limit"
    CLEAR = "clear"
    STALE = "stale"
    RESET = "reset"


_REFUSALS = {
    Cause.START: "there was no reading since the start",
    Cause.LIMIT: "its input is beyond the limit",
    Cause.CLEAR: "its input has not been clear for off_delay_s",
    Cause.STALE: "its input is stale",
}


@dataclass(frozen=True, slots=True)
class Change:
    """The interlock is now tripped, or released."""

    is_tripped: bool
    cause: Cause
    value: float | None  # the newest reading


class Interlock:
    """State of one interlock since `now_s` (monotonic). `is_latched`: it was left so by an earlier run."""

    def __init__(self, settings: InterlockSettings, now_s: float, *, is_latched: bool = False) -> None:
        self.settings = settings
        self.is_tripped = is_latched or settings.on_start == "trip"
        self.is_latched = is_latched
        self._value: float | None = None
        self._seen_s: float | None = None  # when the newest reading came
        self._started_s = now_s
        self._is_beyond = False
        self._beyond_changed_s = now_s
        self._changed_s = float("-inf")  # nothing holds the state of the start

    @property
    def value(self) -> float | None:
        return self._value

    def see(self, value: float, now_s: float) -> None:
        """A good reading of the input, in order."""
        is_beyond = self._beyond(value)
        if is_beyond != self._is_beyond or self._seen_s is None:
            self._is_beyond, self._beyond_changed_s = is_beyond, now_s
        self._value, self._seen_s = value, now_s

    def step(self, now_s: float) -> Change | None:
        """Change the state if it is time to. To be called after every `see` and when `due_at_s` has come."""
        wanted, cause = self._wanted(now_s)
        if wanted == self.is_tripped:
            if wanted and self.settings.latch and self._has_reason(cause, now_s):
                self.is_latched = True  # it was tripped from the start, and now there is a reason
            return None
        if now_s < self._changed_s + (self.settings.min_off_s if wanted else self.settings.min_on_s):
            return None
        if not wanted and self.is_latched:
            return None
        return self._change(wanted, cause, now_s)

    def reset(self, now_s: float) -> tuple[Change | None, str]:
        """A person asks to release a latched interlock: the change, or why not."""
        if not self.is_latched:
            return None, "it is not latched"
        wanted, cause = self._wanted(now_s)
        if wanted:
            return None, _REFUSALS[cause]
        self.is_latched = False
        return self._change(False, Cause.RESET, now_s), ""

    def due_at_s(self, now_s: float) -> float | None:
        """When `step` should be called next if no reading comes; None if nothing can happen by itself."""
        settings = self.settings
        moments = [self._beyond_changed_s + settings.on_delay_s, self._beyond_changed_s + settings.off_delay_s]
        moments += [self._changed_s + settings.min_on_s, self._changed_s + settings.min_off_s]
        moments.append(self._newest_s + settings.stale_after_s)
        return min((moment for moment in moments if moment > now_s), default=None)

    def _change(self, is_tripped: bool, cause: Cause, now_s: float) -> Change:
        self.is_tripped, self._changed_s = is_tripped, now_s
        if is_tripped and self.settings.latch:
            self.is_latched = True
        return Change(is_tripped, cause, self._value)

    def _wanted(self, now_s: float) -> tuple[bool, Cause]:
        settings = self.settings
        if now_s >= self._newest_s + settings.stale_after_s:
            return {"trip": True, "hold": self.is_tripped, "release": False}[settings.on_stale], Cause.STALE
        if self._seen_s is None:
            return self.is_tripped, Cause.START
        lasted_s = now_s - self._beyond_changed_s
        if self._is_beyond:
            # From the trip of the start there is no way back before the value was clear.
            return self.is_tripped or lasted_s >= settings.on_delay_s, Cause.LIMIT
        return self.is_tripped and lasted_s < settings.off_delay_s, Cause.CLEAR

    def _has_reason(self, cause: Cause, now_s: float) -> bool:
        if cause is Cause.STALE:
            return self.settings.on_stale == "trip"
        return cause is Cause.LIMIT and now_s - self._beyond_changed_s >= self.settings.on_delay_s

    @property
    def _newest_s(self) -> float:
        return self._started_s if self._seen_s is None else self._seen_s

    def _beyond(self, value: float) -> bool:
        settings = self.settings
        margin = settings.hysteresis if self._is_beyond else 0.0
        if settings.above is not None:
            return value > settings.above - margin
        return settings.below is not None and value < settings.below + margin
