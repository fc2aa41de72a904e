"""The machine's clocks, and the gateway's `Clock` kept on them and on storage."""

from __future__ import annotations

import ctypes
import functools
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from citynet.notes import ClockNote
from citynet.runtime import log
from citynet_gateway import durable, metrics
from citynet_gateway.clock import STEP_US_MIN, Clock, ClockMode, Memory, Seen
from citynet_gateway.spool.files import Files

LOOK_S = 1.0
LOOKS_MAX = 5
APART_US_MAX = STEP_US_MIN // 10  # a tenth of what counts as a step
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIMESYNCD = Path("/run/systemd/timesync/synchronized")  # where the kernel may not be asked
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex is 208 at most

logger = log.get(__name__)


def wall_us() -> int:
    """The machine's clock, µs since 1970."""
    return time.time_ns() // 1000


def boot_us() -> int:
    """µs since boot, suspend included: no step of the clock moves it."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


@functools.lru_cache(1)
def boot_id() -> str:
    """Names this boot of the machine; where the kernel does not, a name of this process."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()[:64]
    except OSError:
        return str(uuid.uuid4())


def is_synced() -> bool:
    """Whether the kernel considers the clock synchronised.

    adjtimex(2) without modes only reads. The flag is cleared by whatever disciplines the clock (timesyncd, chrony with
    rtcsync, ntpd) and set again by the kernel when somebody sets the clock by hand. systemd-timesyncd's file is asked where a
    sandbox forbids the call.
    """
    answer = _adjtimex()(ctypes.create_string_buffer(_TIMEX_BYTES))
    if answer < 0:
        return TIMESYNCD.exists()
    return bool(answer != _TIME_ERROR)


@functools.lru_cache(1)
def _adjtimex() -> Callable[[ctypes.Array[ctypes.c_char]], int]:
    try:
        call: Callable[[ctypes.Array[ctypes.c_char]], int] = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return lambda _timex: -1
    return call


def look() -> Seen:
    """All of it at one moment.

    A process may be stopped for a while between two questions. So the clock is read between two readings of the time since
    boot, again where they lie apart, for that would look like a step; and the kernel is asked about it before (who sets a
    clock calls it synchronised afterwards) and after.
    """
    was_synced = is_synced()
    found: list[tuple[int, int, int]] = []  # how far apart, time since boot, clock
    while not found or (min(found)[0] > APART_US_MAX and len(found) < LOOKS_MAX):
        before_us, clock_us, after_us = boot_us(), wall_us(), boot_us()
        found.append((after_us - before_us, (before_us + after_us) // 2, clock_us))
    _, since_boot_us, clock_us = min(found)
    return Seen(since_boot_us, clock_us, was_synced and is_synced())


class Timekeeper:
    """`Clock` with the machine behind it. `stamp_us` and `utc_us` from any thread, the rest from the service's.

    Args:
        path: where the mappings of the boots are kept.
        epoch, held: the spool's, see `Clock`.
    """

    def __init__(
        self, files: Files, path: Path, mode: ClockMode, wait_s: float, epoch: int, held: Iterable[int]
    ) -> None:
        self._files = files
        self._path = path
        self._outage = log.OutageLog(logger, "clock-memory")
        self._look_at_s = 0.0
        memory = durable.load(files, path, Memory)
        self.clock = Clock(mode, wait_s, memory, boot_id(), epoch, held, look())
        note = self._learn(save=True)
        # A clock that was right before the first stamp has nothing to explain.
        self._first_note = note if self.clock.is_resumed else None

    def stamp_us(self) -> int:
        """What a reading of now is stamped with; may be a boot stamp (`citynet_gateway.clock`)."""
        return self.clock.stamp_us(boot_us())

    def utc_us(self) -> int:
        """µs since 1970, as well as we know."""
        return self.clock.utc_us(boot_us())

    def turn(self, now_s: float) -> ClockNote | None:
        """Look at the machine if it is time to. A note if the clock became known or stepped."""
        if self._first_note is not None:
            note, self._first_note = self._first_note, None
            return note
        if now_s < self._look_at_s:
            return None
        self._look_at_s = now_s + LOOK_S
        return self._learn(save=False)

    def link(self, *, is_up: bool) -> None:
        """There is a way to the server from now on, or there is none."""
        self.clock.link(boot_us(), is_up=is_up)

    def _learn(self, *, save: bool) -> ClockNote | None:
        was_known = self.clock.is_known
        note, is_due = self.clock.observe(look())
        metrics.CLOCK_KNOWN.set(self.clock.is_known)
        if note is not None and was_known:
            metrics.CLOCK_STEPS.inc()
            logger.warning("clock-stepped", offset_us=note.offset_us)
        elif note is not None:
            logger.info("clock-known", offset_us=note.offset_us)
        if is_due or save:
            self.save()
        return note

    def save(self) -> None:
        """Write the memory. What fails is tried again with the next change; until then a restart guesses more coarsely."""
        try:
            durable.save(self._files, self._path, self.clock.memory())
        except OSError as error:
            self._outage.failed(error)
        else:
            self._outage.worked()
