"""What a device does: sleep, sample, report by exception, keep, send, retry, reboot. Pure: events and times in, actions out.

Nothing here knows a protocol, a clock or a socket. Whoever runs it tells it what happened (`sample`, `acked`, …) and when
(µs on a clock that never goes back), carries out the actions that come back, and calls `tick` at `due_us`.

What holds, whatever happens:

- every report is in the buffer until it is acknowledged, or was given up because the buffer was full; nothing is dropped
  while there is room;
- sequence numbers rise by one a report, over reboots and power cuts too;
- one report is under way at a time, the oldest; one that was handed over is never given up, since somebody may have it;
- while it is powered, what was last reported of a metric is within its deadband of what was last taken, and no report is
  further from the one before than the heartbeat and the interval between two samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

US = 1_000_000
BUFFER_MAX = 100_000
JITTER_SHARE = 0.1  # a sample may come so much sooner than the interval says


class Mode(StrEnum):
    """What a device is doing. It sleeps while it runs and nothing is to be done."""

    RUNNING = "running"
    BOOTING = "booting"
    UPDATING = "updating"
    HUNG = "hung"
    OFF = "off"


class Cause(StrEnum):
    """Why a report was made."""

    START = "start"
    CHANGE = "change"
    HEARTBEAT = "heartbeat"


class ConfigurationError(ValueError):
    """A remote configuration that a device refuses; says which key and why."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a device is configured; all of it from afar. Times in seconds.

    `interval_s`: samples that come sooner after the last one taken are left out (0: none). `deadband` by metric: a value that
    differs by no more from the one reported last is held back; metrics that are not in it are reported when they change at all,
    with `deadband` None every sample is a report. `heartbeat_s`: the longest silence.
    """

    interval_s: float = 0.0
    deadband: Mapping[str, float] | None = None
    heartbeat_s: float = 900.0
    buffer_max: int = 240
    ack_s: float = 15.0
    retry_s: float = 1.0
    retry_s_max: float = 60.0
    watchdog_s: float = 30.0
    boot_s: float = 2.0
    update_s: float = 10.0

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """With these changes. ConfigurationError for a key or value that makes no sense; then nothing has changed."""
        if unknown := sorted(set(changes) - {item.name for item in fields(self)}):
            raise ConfigurationError(f"{unknown[0][:60]!r}: no such option")
        for key, value in changes.items():
            if key == "deadband":
                _check_deadband(value)
            else:
                low, high = _BOUNDS[key]
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                    raise ConfigurationError(f"{key}: {value!r} is not in {low:g}..{high:g}")
                if key == "buffer_max" and value != int(value):
                    raise ConfigurationError(f"{key}: {value!r} is no whole number")
        found = replace(self, **changes)
        if found.retry_s > found.retry_s_max:
            raise ConfigurationError(f"retry_s: {found.retry_s:g} is above retry_s_max {found.retry_s_max:g}")
        return found


_BOUNDS = {
    "interval_s": (0.0, 86_400.0), "heartbeat_s": (1.0, 604_800.0), "buffer_max": (1, BUFFER_MAX), "ack_s": (0.1, 600.0),
    "retry_s": (0.05, 600.0), "retry_s_max": (0.05, 3600.0), "watchdog_s": (1.0, 3600.0), "boot_s": (0.0, 600.0),
    "update_s": (0.0, 3600.0),
}  # fmt: skip


def _check_deadband(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"deadband: {value!r} is no table of numbers by metric")
    for metric, width in value.items():
        if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0.0 <= width < float("inf"):
            raise ConfigurationError(f"deadband.{metric}: {width!r} is no number from 0 on")


@dataclass(frozen=True, slots=True)
class Report:
    """What a device has to say: `values` by metric, measured at `time_us` by its own clock (µs since 1970)."""

    seq: int
    time_us: int
    values: Mapping[str, float]
    cause: Cause


@dataclass(frozen=True, slots=True)
class Send:
    """Hand this report over; `attempt` counts from 1."""

    report: Report
    attempt: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """This report was never handed over and never will be: the buffer was full."""

    report: Report


@dataclass(frozen=True, slots=True)
class Booted:
    """It runs again: why it went down, and what it runs now."""

    reason: str
    version: str


Action = Send | GaveUp | Booted


@dataclass(slots=True)
class Counters:
    """What a device counts. Always: reports = acked + given_up + in the buffer."""

    samples: int = 0
    missed: int = 0  # came while it was down
    skipped: int = 0  # sooner than the interval
    held_back: int = 0  # said nothing new
    reports: int = 0
    acked: int = 0
    given_up: int = 0
    attempts: int = 0
    boots: int = 1
    watchdog: int = 0
    rolled_back: int = 0


@dataclass(slots=True)
class Firmware:
    """One device. See the module's docstring for what it guarantees."""

    options: Options = field(default_factory=Options)
    version: str = "1.0.0"
    mode: Mode = Mode.RUNNING
    revision: int = 0  # of the configuration
    counters: Counters = field(default_factory=Counters)
    buffer: deque[Report] = field(default_factory=deque)
    _seq: int = 0
    _sent: int = 0  # attempts with the oldest report
    _flying: bool = False
    _due: dict[str, int] = field(default_factory=dict)  # timers: what, when
    _backoff_us: int = 0
    _last: dict[str, float] = field(default_factory=dict)
    _reported_us: int | None = None
    _taken_us: int | None = None
    _why: str = ""
    _next: str = ""  # version that is being installed
    _previous: str = ""  # version before a boot that is on trial
    _sound: bool = True  # whether `version` comes up
    _next_sound: bool = True

    @property
    def due_us(self) -> int | None:
        """When `tick` has to be called; None: nothing is to be waited for."""
        return min(self._due.values(), default=None)

    @property
    def is_asleep(self) -> bool:
        """Whether nothing is going on until the next sample."""
        return self.mode is Mode.RUNNING and not self._flying and not self._due

    # --- samples and reports ---

    def sample(self, now_us: int, time_us: int, values: Mapping[str, float]) -> list[Action]:
        """A sensor has values, measured at `time_us` by the device's clock."""
        count = self.counters
        count.samples += 1
        if self.mode is not Mode.RUNNING:
            count.missed += 1
            return []
        soonest_us = (1.0 - JITTER_SHARE) * self.options.interval_s * US
        if self._taken_us is not None and 0 <= time_us - self._taken_us < soonest_us:
            count.skipped += 1
            return []
        self._taken_us = time_us
        report = self._report(time_us, values)
        if report is None:
            count.held_back += 1
            return []
        return [*self._keep(report), *self._send(now_us)]

    def _report(self, time_us: int, values: Mapping[str, float]) -> Report | None:
        since_us = None if self._reported_us is None else time_us - self._reported_us
        band = self.options.deadband
        if since_us is None:
            cause, chosen = Cause.START, dict(values)
        elif not 0 <= since_us < self.options.heartbeat_s * US:  # a clock that went back says nothing about silence
            cause, chosen = Cause.HEARTBEAT, dict(values)
        else:
            cause = Cause.CHANGE
            chosen = dict(values) if band is None else {k: v for k, v in values.items() if self._is_new(k, v, band)}
        if not chosen:
            return None
        self._last.update(chosen)
        if len(chosen) == len(values):
            self._reported_us = time_us  # one that says everything; others do not put off the heartbeat
        self._seq += 1
        self.counters.reports += 1
        return Report(self._seq, time_us, chosen, cause)

    def _is_new(self, metric: str, value: float, band: Mapping[str, float]) -> bool:
        last = self._last.get(metric)
        return last is None or abs(value - last) > band.get(metric, 0.0)

    def _keep(self, report: Report) -> list[Action]:
        """Into the buffer; the oldest that was never handed over gives way, which may be this one."""
        self.buffer.append(report)
        gone: list[Action] = []
        while len(self.buffer) > self.options.buffer_max and len(self.buffer) > self._untouchable():
            position = self._untouchable()
            gone.append(GaveUp(self.buffer[position]))
            del self.buffer[position]
            self.counters.given_up += 1
        return gone

    def _untouchable(self) -> int:
        return 1 if self._sent else 0

    # --- sending ---

    def _send(self, now_us: int) -> list[Action]:
        if self.mode is not Mode.RUNNING or self._flying or "retry" in self._due or not self.buffer:
            return []
        self._flying = True
        self._sent += 1
        self.counters.attempts += 1
        self._due["ack"] = now_us + round(self.options.ack_s * US)
        return [Send(self.buffer[0], self._sent)]

    def acked(self, now_us: int, seq: int) -> list[Action]:
        """Somebody has report `seq`. An answer that comes late counts as well; one to anything else changes nothing."""
        if not self.buffer or self.buffer[0].seq != seq or not self._sent or self.mode is not Mode.RUNNING:
            return []
        self.buffer.popleft()
        self.counters.acked += 1
        self._flying, self._sent, self._backoff_us = False, 0, 0
        self._due.pop("ack", None)
        self._due.pop("retry", None)
        self._previous = ""  # what reaches its gateway is a sound version
        return self._send(now_us)

    def failed(self, now_us: int) -> list[Action]:
        """What was under way did not arrive, or nobody can tell: it is tried again, ever later."""
        if self._flying:
            self._flying = False
            self._due.pop("ack", None)
            first, most = round(self.options.retry_s * US), round(self.options.retry_s_max * US)
            self._backoff_us = min(max(2 * self._backoff_us, first), most)
            self._due["retry"] = now_us + self._backoff_us
        return []

    # --- time ---

    def tick(self, now_us: int) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for name in sorted(name for name, due_us in self._due.items() if due_us <= now_us):
            if name not in self._due:
                continue  # an earlier one has settled it
            del self._due[name]
            actions += getattr(self, f"_on_{name}")(now_us)
        return actions

    def _on_ack(self, now_us: int) -> list[Action]:
        return self.failed(now_us)

    def _on_retry(self, now_us: int) -> list[Action]:
        return self._send(now_us)

    def _on_watchdog(self, now_us: int) -> list[Action]:
        self.counters.watchdog += 1
        if self._previous:  # a version that hangs at its first boot is taken back
            self.version, self._previous, self._sound = self._previous, "", True
            self.counters.rolled_back += 1
        self._down(now_us, Mode.BOOTING, "watchdog")
        return []

    def _on_boot(self, now_us: int) -> list[Action]:
        self.counters.boots += 1
        if not self._sound:
            self.hang(now_us)
            return []
        self.mode = Mode.RUNNING
        return [Booted(self._why, self.version), *self._send(now_us)]

    def _on_update(self, now_us: int) -> list[Action]:
        self._previous, self.version, self._sound = self.version, self._next, self._next_sound
        self._down(now_us, Mode.BOOTING, "update")
        return []

    # --- what happens to it ---

    def _down(self, now_us: int, mode: Mode, why: str) -> None:
        """Out of memory goes what a reboot forgets. The buffer and the sequence are in flash."""
        self.mode, self._flying, self._backoff_us, self._why = mode, False, 0, why
        self._last, self._reported_us, self._taken_us = {}, None, None
        self._due = {"boot": now_us + round(self.options.boot_s * US)} if mode is Mode.BOOTING else {}

    def configure(self, changes: Mapping[str, Any]) -> int:
        """Take over options from afar; the new revision. ConfigurationError: refused, nothing has changed."""
        self.options = self.options.changed(changes)
        self.revision += 1
        return self.revision

    def update(self, now_us: int, version: str, *, sound: bool = True) -> None:
        """Install a version; one that is not sound hangs at its boot, and the watchdog brings the old one back."""
        if self.mode is Mode.RUNNING:
            self._next, self._next_sound = version, sound
            self._down(now_us, Mode.UPDATING, "update")
            self._due["update"] = now_us + round(self.options.update_s * US)

    def reboot(self, now_us: int, why: str = "command") -> None:
        """Restart, if it is on."""
        if self.mode is not Mode.OFF:
            self._down(now_us, Mode.BOOTING, why)

    def hang(self, now_us: int) -> None:
        """Its program stands still; the watchdog is the only thing that goes on."""
        if self.mode is not Mode.OFF:
            self._down(now_us, Mode.HUNG, "watchdog")
            self._due["watchdog"] = now_us + round(self.options.watchdog_s * US)

    def power(self, now_us: int, *, on: bool) -> None:
        """Power goes or comes back."""
        if not on:
            self._down(now_us, Mode.OFF, "power")
        elif self.mode is Mode.OFF:
            self._down(now_us, Mode.BOOTING, "power")
