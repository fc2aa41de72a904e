"""Which poll of a bus is due, pure: time and randomness are arguments.

A device that does not answer costs its timeout whenever it is asked, and all others on the bus wait meanwhile. So it
is asked ever more rarely, with jitter, and only when no poll of a healthy device is due; a probe that had to wait for
`PROBE_WAIT_S_MAX` goes anyway, once, and then the healthy ones have their turn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from citynet_gateway.drivers.polling import Backoff, Ticker

PROBE_WAIT_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Task:
    """A poll: values of one device with one interval. `device` is its number on the bus."""

    device: int
    interval_s: float


@dataclass(frozen=True, slots=True)
class Turn:
    """The poll to do now. `probe`: the device was silent last time. `skipped`: grid points that went by without a poll."""

    task: int
    probe: bool
    skipped: int


class _Health:
    """What is known of one device."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.probe_at_s = 0.0

    @property
    def silent(self) -> bool:
        return self.backoff.failures > 0


class Schedule:
    """The polls of one bus. Every method takes the monotonic time in s."""

    def __init__(
        self, tasks: Sequence[Task], now_s: float, first_pause_s: float, pause_s_max: float, random: Random
    ) -> None:
        self._tasks = tasks
        self._tickers = [Ticker(task.interval_s, now_s) for task in tasks]
        self._devices = {task.device: _Health(Backoff(first_pause_s, pause_s_max, random)) for task in tasks}
        self._probed_at_s = now_s

    def next(self, now_s: float) -> Turn | None:
        """The poll that is due, None if none is."""
        due = [k for k in self._healthy() if self._tickers[k].due_s <= now_s]
        probe = self._probe(now_s)
        if probe is not None and (not due or now_s - self._probe_since_s(probe) >= PROBE_WAIT_S_MAX):
            self._probed_at_s = now_s
            return Turn(probe, True, self._tickers[probe].take(now_s) if self._tickers[probe].due_s <= now_s else 0)
        if not due:
            return None
        first = min(due, key=lambda k: self._tickers[k].due_s)
        return Turn(first, False, self._tickers[first].take(now_s))

    def wait_s(self, now_s: float, longest_s: float) -> float:
        """How long nothing is due, at most `longest_s`."""
        times = [self._tickers[k].due_s for k in self._healthy()]
        times += [health.probe_at_s for health in self._devices.values() if health.silent]
        return min(longest_s, max(0.0, min(times, default=now_s + longest_s) - now_s))

    def again(self, task: int) -> None:
        """The poll could not be done: it is due at once."""
        self._tickers[task].again()

    def failed(self, device: int, now_s: float) -> int:
        """The device did not answer; how many times in a row."""
        health = self._devices[device]
        health.probe_at_s = now_s + health.backoff.failed()
        return health.backoff.failures

    def answered(self, device: int) -> bool:
        """The device answered; whether it had been silent."""
        health = self._devices[device]
        was_silent = health.silent
        health.backoff.worked()
        return was_silent

    @property
    def silent(self) -> int:
        """How many devices do not answer."""
        return sum(health.silent for health in self._devices.values())

    def _healthy(self) -> list[int]:
        return [k for k, task in enumerate(self._tasks) if not self._devices[task.device].silent]

    def _probe(self, now_s: float) -> int | None:
        """The silent device that has waited longest beyond its pause: its poll that has been due longest."""
        ready = [
            (health.probe_at_s, device)
            for device, health in self._devices.items()
            if health.silent and health.probe_at_s <= now_s
        ]
        if not ready:
            return None
        device = min(ready)[1]
        return min(
            (k for k, task in enumerate(self._tasks) if task.device == device), key=lambda k: self._tickers[k].due_s
        )

    def _probe_since_s(self, probe: int) -> float:
        """Since when a probe could have gone: never before the last one, so that they do not follow each other."""
        return max(self._devices[self._tasks[probe].device].probe_at_s, self._probed_at_s)
