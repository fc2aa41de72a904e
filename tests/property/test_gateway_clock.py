"""The gateway's clock against a machine whose clock is wrong, is set, steps, and whose power goes at any moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from citynet.notes import ClockNote, EventNote
from citynet.quality import CLOCK_UNSYNCED
from citynet.reading import Reading
from citynet_gateway.clock import KNOWN_FROM_US, SAVE_US, Boot, Clock, Memory, Seen, boot_stamp, is_boot_stamp

SECOND_US = 1_000_000
YEAR_US = 365 * 86_400 * SECOND_US
TRUE_US = 1_790_000_000 * SECOND_US
WAIT_S = 60.0
ERRORS_US = [0, -YEAR_US, YEAR_US, -TRUE_US, -5 * SECOND_US, 3_600 * SECOND_US]


@dataclass
class Record:
    """What was stamped, when by the true clock, and in which epoch and boot."""

    stamp_us: int
    true_us: int
    epoch: int
    boot: str


@dataclass
class Machine:
    """A machine and its battery: `true_us` goes on whatever happens."""

    true_us: int = TRUE_US
    boot_at_us: int = TRUE_US - 10 * SECOND_US
    error_us: int = 0
    is_synced: bool = False
    boots: int = 0
    epochs: int = 0
    known: set[str] = field(default_factory=set)  # boots whose clock was seen to be right

    @property
    def boot(self) -> str:
        return f"boot-{self.boots}"

    @property
    def boot_us(self) -> int:
        return self.true_us - self.boot_at_us

    def look(self) -> Seen:
        if self.is_synced:
            self.known.add(self.boot)
        return Seen(self.boot_us, self.true_us + self.error_us, self.is_synced)


class ClockMachine(RuleBasedStateMachine):
    """``clock = "wait"``: only a synchronised clock is believed, and then it is right."""

    @initialize(error_us=st.sampled_from(ERRORS_US))
    def begin(self, error_us: int) -> None:
        self.machine = Machine(error_us=error_us)
        self.saved: Memory | None = None
        self.records: list[Record] = []
        self.notes: list[ClockNote] = []
        self.up_since_us: int | None = None
        self._open()

    def _open(self) -> None:
        machine = self.machine
        machine.epochs += 1
        held = {record.epoch for record in self.records}
        self.up_since_us = None
        memory = None if self.saved is None else msgspec.json.decode(msgspec.json.encode(self.saved), type=Memory)
        self.clock = Clock("wait", WAIT_S, memory, machine.boot, machine.epochs, held, machine.look())
        self._observe(save=True)

    def _observe(self, *, save: bool = False) -> None:
        note, is_due = self.clock.observe(self.machine.look())
        self.notes += [note] if note is not None else []
        if is_due or save or note is not None:
            self.saved = msgspec.json.decode(msgspec.json.encode(self.clock.memory()), type=Memory)

    @rule(seconds=st.integers(1, SAVE_US // SECOND_US))
    def time_passes(self, seconds: int) -> None:
        self.machine.true_us += seconds * SECOND_US
        self._observe()

    @rule()
    def the_time_server_answers(self) -> None:
        self.machine.error_us, self.machine.is_synced = 0, True
        self._observe()

    @rule(error_us=st.sampled_from(ERRORS_US))
    def somebody_sets_the_clock(self, error_us: int) -> None:
        """The kernel then calls it unsynchronised."""
        before = self.clock.utc_us(self.machine.boot_us)
        self.machine.error_us, self.machine.is_synced = error_us, False
        self._observe()
        assert self.clock.utc_us(self.machine.boot_us) == before, "nobody vouches for the new time"

    @rule(count=st.integers(1, 3))
    def readings_come(self, count: int) -> None:
        for _ in range(count):
            self.machine.true_us += 1_000
            stamp_us = self.clock.stamp_us(self.machine.boot_us)
            machine = self.machine
            assert is_boot_stamp(stamp_us) == (not self.clock.is_known)
            if self.clock.is_known:
                assert stamp_us == machine.true_us
            self.records.append(Record(stamp_us, machine.true_us, machine.epochs, machine.boot))

    @rule(is_up=st.booleans())
    def the_link(self, is_up: bool) -> None:
        self.clock.link(self.machine.boot_us, is_up=is_up)
        self.up_since_us = self.machine.true_us if is_up else None

    @rule()
    def the_process_restarts(self) -> None:
        was_known = self.clock.is_known
        self._open()
        assert self.clock.is_known or not was_known, "a boot does not forget the time"

    @rule(error_us=st.sampled_from(ERRORS_US), seconds=st.integers(1, 86_400))
    def the_power_goes(self, error_us: int, seconds: int) -> None:
        machine = self.machine
        machine.boots += 1
        machine.true_us += seconds * SECOND_US
        machine.boot_at_us, machine.error_us, machine.is_synced = machine.true_us, error_us, False
        machine.true_us += SECOND_US
        self._open()

    @precondition(lambda self: self.records and self.up_since_us is not None)
    @rule()
    def send(self) -> None:
        """The oldest epoch goes out as a batch, unless it has to wait."""
        epoch = self.records[0].epoch
        if self.clock.holds(epoch):
            return
        batch = [record for record in self.records if record.epoch == epoch]
        self.records = [record for record in self.records if record.epoch != epoch]
        sent = self.clock.dated(epoch, [Reading("d", "m", item.stamp_us, float(k)) for k, item in enumerate(batch)])
        assert [item.value for item in sent] == [float(k) for k in range(len(batch))], "nothing lost, nothing reordered"
        for record, reading in zip(batch, sent, strict=True):
            assert not is_boot_stamp(reading.time_us)
            assert self.clock.dated_note(epoch, EventNote("d", "c", "t", record.stamp_us)).time_us == reading.time_us  # type: ignore[union-attr]
            if not is_boot_stamp(record.stamp_us):
                assert (reading.time_us, reading.quality) == (record.stamp_us, 0)
            elif record.boot in self.machine.known:
                assert (reading.time_us, reading.quality) == (record.true_us, 0), "the mapping of its boot is exact"
            else:
                assert reading.quality == CLOCK_UNSYNCED
                assert reading.time_us >= KNOWN_FROM_US - 2 * SAVE_US
        gaps = [b.true_us - a.true_us for a, b in pairwise(batch)]
        if all(is_boot_stamp(record.stamp_us) for record in batch):
            assert [b.time_us - a.time_us for a, b in pairwise(sent)] == gaps, "distances are kept"

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        if self.up_since_us is None or self.machine.true_us - self.up_since_us < WAIT_S * SECOND_US:
            return
        assert not any(self.clock.holds(record.epoch) for record in self.records)

    @invariant()
    def it_is_known_when_it_was_right(self) -> None:
        if hasattr(self, "clock"):
            assert self.clock.is_known == (self.machine.boot in self.machine.known)


TestClock = ClockMachine.TestCase
TestClock.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def make(
    mode: str = "wait",
    *,
    memory: Memory | None = None,
    boot: str = "b",
    wall_us: int = 0,
    is_synced: bool = False,
    held: Iterable[int] = (),
) -> Clock:
    clock = Clock(mode, WAIT_S, memory, boot, 7, held, Seen(SECOND_US, wall_us, is_synced))  # type: ignore[arg-type]
    clock.observe(Seen(SECOND_US, wall_us, is_synced))
    return clock


def test_trust_believes_a_clock_that_was_ever_set_and_follows_its_steps() -> None:
    clock = make("trust", wall_us=SECOND_US)
    assert not clock.is_known, "1970"
    note, _ = clock.observe(Seen(2 * SECOND_US, TRUE_US, False))
    assert note == ClockNote("b", TRUE_US - 2 * SECOND_US)
    assert clock.observe(Seen(3 * SECOND_US, TRUE_US + SECOND_US + 50_000, False)) == (None, False)
    stepped, _ = clock.observe(Seen(4 * SECOND_US, TRUE_US + YEAR_US, False))
    assert stepped == ClockNote("b", TRUE_US + YEAR_US - 4 * SECOND_US)
    assert clock.stamp_us(5 * SECOND_US) == TRUE_US + YEAR_US + SECOND_US
    # What was stamped before keeps the mapping that was frozen first.
    (dated,) = clock.dated(7, [Reading("d", "m", boot_stamp(SECOND_US), 1.0)])
    assert (dated.time_us, dated.quality) == (TRUE_US - SECOND_US, 0)


def test_a_wrong_clock_does_not_go_behind_what_was_known_before() -> None:
    clock = make(memory=Memory(TRUE_US, []), wall_us=5 * SECOND_US)
    assert clock.utc_us(SECOND_US) == TRUE_US


def test_a_boot_that_never_knew_the_time_ends_before_the_next_one_begins() -> None:
    ahead = Boot("old", TRUE_US + YEAR_US, TRUE_US + YEAR_US, 100 * SECOND_US, epochs=[3])
    plausible = Boot("old", TRUE_US - YEAR_US, TRUE_US - YEAR_US, 100 * SECOND_US, epochs=[3])
    for old, expected_us in ((ahead, TRUE_US - SECOND_US - 100 * SECOND_US - SAVE_US), (plausible, TRUE_US - YEAR_US)):
        clock = make(memory=Memory(TRUE_US - YEAR_US, [old]), wall_us=TRUE_US, is_synced=True, held=[3])
        (dated,) = clock.dated(3, [Reading("d", "m", boot_stamp(0), 1.0)])
        assert (dated.time_us, dated.quality) == (expected_us, CLOCK_UNSYNCED)


def test_an_epoch_that_nobody_remembers_waits_no_longer_than_others() -> None:
    clock = make()
    assert clock.holds(999)
    clock.link(SECOND_US, is_up=True)
    clock.observe(Seen(round((1 + WAIT_S) * SECOND_US), 0, False))
    assert not clock.holds(999)


def test_the_memory_stays_bounded_and_an_unknown_epoch_is_flagged() -> None:
    memory: Memory | None = None
    for number in range(300):
        clock = Clock("wait", WAIT_S, memory, f"boot-{number}", number, range(number), Seen(1, 1, False))
        memory = clock.memory()
        assert len(memory.boots) <= 65
    (dated,) = clock.dated(3, [Reading("d", "m", boot_stamp(0), 1.0, 8)])
    assert dated.quality == CLOCK_UNSYNCED | 8
