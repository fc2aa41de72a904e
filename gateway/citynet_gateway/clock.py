"""What time it is, as far as this gateway knows: pure. Times of the machine are arguments (`Seen`).

A reading without a time of its own is stamped with the time since boot until the clock is known, and gets its UTC when it is
sent. Every boot has one mapping from time since boot to UTC for what was stamped so, and it is frozen:

    unknown --the clock is good---------> known      the mapping is exact; readings are sent unflagged
    unknown --a link for `wait_s`-------> guessing   the guess made at boot; readings are sent flagged (clock unsynchronised)
    guessing --the clock is good--------> known      what is sent from now on gets the exact mapping

While it is unknown telemetry waits, alarms do not: they go out flagged, with the guess.

Known stays known until the next boot: without its time server a machine drifts by seconds a day, it does not forget.
A step of the clock afterwards changes what is stamped later, never what was stamped before, and is recorded.

A boot that ended before its clock was known keeps its guess, unless that would put its end behind the next boot's begin.
The wait begins with the link, because the same link that is missing for days mostly brings the time as well.

The stamp "so long after boot" is a number in a range of its own, 146,000 years before 1970, so that it cannot be taken for a
device's date and needs no change of what a spool stores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from citynet import quality
from citynet.notes import ClockNote, EventNote, Note
from citynet.reading import Reading

KNOWN_FROM_US = 1_704_067_200_000_000  # 2024: a clock before that was never set
STEP_US_MIN = 100_000  # smaller differences are reading noise and leap smearing
SAVE_US = 600_000_000  # how old the memory of a running boot may be
BOOTS_MAX = 64
EPOCHS_MAX = 2_048
_BASE_US = -(1 << 62)
_SPAN_US = 1 << 52  # 142 years either way

ClockMode = Literal["trust", "wait"]


def boot_stamp(boot_us: int) -> int:
    """The stamp for a moment `boot_us` after boot."""
    return _BASE_US + boot_us


def is_boot_stamp(time_us: int) -> bool:
    return -_SPAN_US < time_us - _BASE_US < _SPAN_US


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the machine.

    Attributes:
        boot_us: µs since boot, suspend included; wall_us: its clock, µs since 1970.
        is_synced: whether the kernel says that something keeps the clock right.
    """

    boot_us: int
    wall_us: int
    is_synced: bool


class Boot(msgspec.Struct):
    """What is remembered of one boot.

    `frozen_us` maps what was stamped since boot, `offset_us` what is stamped now; `last_us` is how long the boot is known to
    have lasted. `is_known`: the mapping is exact; `is_settled`: it will not change any more.
    """

    boot: str
    frozen_us: int
    offset_us: int
    last_us: int
    is_known: bool = False
    is_settled: bool = False
    epochs: list[int] = []


class Memory(msgspec.Struct):
    """The boots whose records may still be in the spool, oldest first, and the newest time that was known to be right."""

    newest_us: int = 0
    boots: list[Boot] = []


class Clock:
    """The clock of one run of the gateway, in the boot `boot` and with the spool's epoch `epoch`.

    `stamp_us` and `utc_us` may be called from any thread, everything else from one.

    Args:
        mode: ``trust`` the machine's clock once it is past 2024, or ``wait`` until the kernel calls it synchronised.
        held: the epochs that the spool still has.
        wait_s: how long telemetry with boot stamps waits for the clock.
    """

    def __init__(
        self,
        mode: ClockMode,
        wait_s: float,
        memory: Memory | None,
        boot: str,
        epoch: int,
        held: Iterable[int],
        seen: Seen,
    ) -> None:
        self._mode: ClockMode = mode
        self._memory = memory or Memory()
        self._wait_us = round(wait_s * 1_000_000)
        self._deadline_us: int | None = None  # while there is a link
        self._saved_us = seen.boot_us
        self._forget(set(held))
        found = next((item for item in self._memory.boots if item.boot == boot), None)
        self.is_resumed = found is not None  # this boot has had a gateway before: it may have left boot stamps
        if found is None:
            guess_us = max(seen.wall_us, self._memory.newest_us, KNOWN_FROM_US) - seen.boot_us
            found = Boot(boot, guess_us, guess_us, seen.boot_us)
            self._memory.boots.append(found)
        self._boot = found
        found.epochs.append(epoch)
        self._map = (found.is_known, found.offset_us)  # one object, so that other threads read both or neither

    # --- telling the time (any thread)

    def stamp_us(self, boot_us: int) -> int:
        """What a reading of this moment is stamped with: UTC, or a boot stamp while the clock is unknown."""
        is_known, offset_us = self._map
        return boot_us + offset_us if is_known else boot_stamp(boot_us)

    def utc_us(self, boot_us: int) -> int:
        """µs since 1970, as well as we know."""
        return boot_us + self._map[1]

    @property
    def is_known(self) -> bool:
        return self._map[0]

    # --- learning it

    def link(self, boot_us: int, *, is_up: bool) -> None:
        """There is a way to the server from now on, or there is none."""
        self._deadline_us = boot_us + self._wait_us if is_up else None

    def observe(self, seen: Seen) -> tuple[ClockNote | None, bool]:
        """Look at the machine. Returns a note if the clock became known or stepped, and whether the memory should be saved."""
        boot = self._boot
        boot.last_us = max(boot.last_us, seen.boot_us)
        offset_us = seen.wall_us - seen.boot_us
        is_good = (seen.is_synced or self._mode == "trust") and seen.wall_us >= KNOWN_FROM_US
        note = None
        if is_good and (not boot.is_known or abs(offset_us - boot.offset_us) >= STEP_US_MIN):
            if not boot.is_known:
                boot.is_known = boot.is_settled = True
                boot.frozen_us = offset_us
                self._settle_older()
            boot.offset_us = offset_us
            self._map = (True, offset_us)
            note = ClockNote(boot.boot, offset_us)
        if boot.is_known:
            self._memory.newest_us = seen.boot_us + boot.offset_us
        gave_up = not boot.is_settled and self._deadline_us is not None and seen.boot_us >= self._deadline_us
        if gave_up:
            for item in self._memory.boots:
                item.is_settled = True
        is_due = seen.boot_us - self._saved_us >= SAVE_US
        if is_due or gave_up or note is not None:
            self._saved_us = seen.boot_us
            return note, True
        return note, False

    def _settle_older(self) -> None:
        """No boot may end behind the begin of the next one; else the cut between them counts as short."""
        begin_us = self._boot.frozen_us
        older = self._memory.boots[: self._memory.boots.index(self._boot)]
        for boot in reversed(older):
            if not boot.is_settled:
                boot.frozen_us = min(boot.frozen_us, begin_us - boot.last_us - SAVE_US)
                boot.is_settled = True
            begin_us = boot.frozen_us

    # --- what it means for records

    def holds(self, epoch: int) -> bool:
        """Whether boot stamps of this epoch should wait: their boot's time may yet become known."""
        if self._boot.is_settled:
            return False
        boot = self._of(epoch)
        return boot is None or not boot.is_settled

    def mapping(self, epoch: int) -> tuple[int, bool]:
        """(offset in µs, whether it is exact) for boot stamps of an epoch. One nobody remembers counts as of this boot."""
        boot = self._of(epoch)
        if boot is None:
            return self._boot.frozen_us, False
        return boot.frozen_us, boot.is_known

    def dated(self, epoch: int, readings: list[Reading]) -> list[Reading]:
        """The same readings with boot stamps turned into UTC, flagged where that is a guess."""
        if not any(is_boot_stamp(item.time_us) for item in readings):
            return readings
        offset_us, is_exact = self.mapping(epoch)
        flag = 0 if is_exact else quality.CLOCK_UNSYNCED
        return [
            Reading(item.device, item.metric, item.time_us - _BASE_US + offset_us, item.value, item.quality | flag)
            if is_boot_stamp(item.time_us)
            else item
            for item in readings
        ]

    def dated_note(self, epoch: int, note: Note) -> Note:
        """The same for a note."""
        if isinstance(note, EventNote) and is_boot_stamp(note.time_us):
            moment_us = note.time_us - _BASE_US + self.mapping(epoch)[0]
            return EventNote(note.device, note.code, note.text, moment_us)
        return note

    # --- memory

    def memory(self) -> Memory:
        """What must be there after a restart: save it when this clock is made, when `observe` says so, and at the end."""
        return self._memory

    def _of(self, epoch: int) -> Boot | None:
        return next((boot for boot in reversed(self._memory.boots) if epoch in boot.epochs), None)

    def _forget(self, held: set[int]) -> None:
        boots = self._memory.boots
        for boot in boots:
            boot.epochs = [epoch for epoch in boot.epochs if epoch in held][-EPOCHS_MAX:]
        kept = [boot for boot in boots[:-1] if boot.epochs] + boots[-1:]  # the last one may be the running one
        self._memory.boots = kept[-BOOTS_MAX:]
