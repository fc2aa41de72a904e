"""The spool against a model, on a modelled file system: whatever was synced is there after faults, kills and power cuts."""

from __future__ import annotations

import errno
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from citynet.control import Stream
from citynet.wire import STREAMS
from tests.spool_world import FAULTS, SpoolWorld

SCHEDULES = (
    (9_900, 8),
    (100, 60),
)  # (how many, steps of each): mostly short ones, in which a first fault does its worst
NIGHTLY_STEPS = 20
NIGHTLY_PART = 1_000
ROOT = Path(__file__).resolve().parents[2]

streams = st.sampled_from(STREAMS)


class SpoolMachine(RuleBasedStateMachine):
    """Hypothesis chooses the steps, and shrinks them when something breaks."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        note(f"seed {seed}")
        self.world = SpoolWorld(seed)

    @rule(
        stream=streams,
        readings=st.integers(1, 3),
        notes=st.integers(0, 1),
        size=st.integers(0, 300),
        times=st.integers(1, 3),
    )
    def write(self, stream: Stream, readings: int, notes: int, size: int, times: int) -> None:
        for _ in range(times):
            self.world.append(stream, readings, notes, size)
        self.world.sync(stream)

    @rule(stream=streams, size=st.integers(0, 300), waits=st.booleans())
    def append(self, stream: Stream, size: int, waits: bool) -> None:
        self.world.append(stream, 1, 1, size, waits=waits)

    @rule(stream=streams, share=st.floats(0, 1))
    def ack(self, stream: Stream, share: float) -> None:
        self.world.ack(stream, share)

    @rule(operation=st.sampled_from(FAULTS), after=st.integers(0, 2), code=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def plan_failure(self, operation: str, after: int, code: int) -> None:
        self.world.plan_failure(operation, after, code)

    @rule(room=st.integers(1, 40))
    def plan_short_write(self, room: int) -> None:
        self.world.plan_short_write(room)

    @rule(calls=st.integers(0, 8))
    def plan_death(self, calls: int) -> None:
        self.world.plan_death(calls)

    @rule(how=st.sampled_from(["stop", "kill", "cut"]))
    def restart(self, how: str) -> None:
        self.world.restart(how)

    @rule(stream=streams, share=st.floats(0, 1))
    def read(self, stream: Stream, share: float) -> None:
        self.world.read_anywhere(stream, share)

    @invariant()
    def books_balance(self) -> None:
        self.world.check_books()


SpoolMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TestSpoolModel = SpoolMachine.TestCase


def run_schedules(first_seed: int, count: int, steps: int) -> int:
    """So many random lives of a spool; an assertion names the seed. How many there were."""
    done = 0
    for seed in range(first_seed, first_seed + count):
        try:
            SpoolWorld(seed).live(steps)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {steps} steps: {error}") from error
        done += 1
    return done


def test_random_schedules_of_faults_kills_and_power_cuts(seed: int) -> None:
    done = sum(run_schedules(seed, count, steps) for count, steps in SCHEDULES)
    assert done >= 10_000


@pytest.mark.nightly
@pytest.mark.timeout(6 * 3600)
def test_a_million_schedules(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.syspath_prepend(ROOT)  # the processes import this module by its name, and get our path
    tasks = [(seed + NIGHTLY_PART * k, NIGHTLY_PART, NIGHTLY_STEPS) for k in range(1_000_000 // NIGHTLY_PART)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        done = sum(pool.map(run_schedules, *zip(*tasks, strict=True)))
    assert done >= 1_000_000
