"""The spool against a model, on a modelled file system: whatever was synced is there after faults, kills and power cuts."""

from __future__ import annotations

import errno
from random import Random

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from citynet.control import Stream
from citynet.wire import STREAMS
from tests.spool_world import FAULTS, SpoolWorld

SCHEDULES = 250
STEPS = 60

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

    @rule(stream=streams, size=st.integers(0, 300))
    def append(self, stream: Stream, size: int) -> None:
        self.world.append(stream, 1, 1, size)

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


def run_schedules(first_seed: int, count: int) -> None:
    """Random lives of a spool; an assertion names the seed."""
    for seed in range(first_seed, first_seed + count):
        try:
            SpoolWorld(seed).live(STEPS)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_random_schedules_of_faults_kills_and_power_cuts() -> None:
    seed = Random().getrandbits(40)
    print(f"first seed {seed}")
    run_schedules(seed, SCHEDULES)
