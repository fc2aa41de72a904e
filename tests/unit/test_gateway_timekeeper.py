"""One look at the machine's clocks, by a process that may be stopped between any two questions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from citynet_gateway import timekeeper
from citynet_gateway.clock import STEP_US_MIN, Seen

OFFSET_US = 1_790_000_000_000_000
PAUSE_US = 5_000_000


@dataclass
class Machine:
    """Clocks that go on by a microsecond a question, by `PAUSE_US` at the questions in `pauses`; set right at `set_at`."""

    pauses: tuple[int, ...] = ()
    set_at: int = 0  # by then the clock is right, and the kernel says so
    asked: int = 0
    now_us: int = 0

    def _ask(self) -> int:
        self.now_us += PAUSE_US if self.asked in self.pauses else 1
        self.asked += 1
        return self.now_us

    def wall_us(self) -> int:
        now_us = self._ask()
        return now_us + (OFFSET_US if self.asked > self.set_at else 0)

    def is_synced(self) -> bool:
        self._ask()
        return self.asked > self.set_at

    def look(self, monkeypatch: pytest.MonkeyPatch) -> Seen:
        monkeypatch.setattr(timekeeper, "boot_us", self._ask)
        monkeypatch.setattr(timekeeper, "wall_us", self.wall_us)
        monkeypatch.setattr(timekeeper, "is_synced", self.is_synced)
        return timekeeper.look()


@pytest.mark.parametrize("at", range(8))
def test_a_pause_is_no_step(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    seen = Machine(pauses=(at,)).look(monkeypatch)
    assert abs(seen.wall_us - seen.boot_us - OFFSET_US) < STEP_US_MIN
    assert seen.is_synced


def test_where_it_is_paused_all_the_time_a_look_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Machine(pauses=tuple(range(100))).look(monkeypatch)
    assert abs(seen.wall_us - seen.boot_us - OFFSET_US) <= PAUSE_US


@pytest.mark.parametrize("set_at", range(8))
def test_a_clock_that_is_set_meanwhile_is_not_believed_before_it_is_right(
    monkeypatch: pytest.MonkeyPatch, set_at: int
) -> None:
    seen = Machine(set_at=set_at).look(monkeypatch)
    is_right = abs(seen.wall_us - seen.boot_us - OFFSET_US) < STEP_US_MIN
    assert is_right or not seen.is_synced
