"""Commands are carried out at most once, and a pushed configuration is confirmed or gone: over kills and power cuts."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citynet.control import Command, CommandResult
from citynet_gateway import durable, pushed_state
from citynet_gateway.command_memory import COMMANDS_MAX, FORGET_AFTER_US, CommandMemory, Entries
from citynet_gateway.pushed_state import Pushed
from tests.sim_files import DiedError, SimFiles

FOLDER = Path("/data")
SECOND_US = 1_000_000
NOW_US = 1_790_000_000 * SECOND_US


def order(number: int, kind: str = "write-output", deadline_us: int = NOW_US + 60 * SECOND_US) -> Command:
    return Command(f"c{number}", kind, deadline_us)


# --- durable state


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["kill", "cut"])), max_size=25))
def test_a_state_is_the_old_or_the_new_one_wherever_it_ends(seed: int, deaths: list[tuple[int, str]]) -> None:
    random, files = Random(seed), SimFiles()
    safe = 0
    for number, (calls, how) in enumerate(deaths, 1):
        files.dies_in = calls
        try:
            durable.save(files, FOLDER / "state", Pushed(serial=number))
            safe = number
        except DiedError:
            pass
        files.dies_in = None
        if how == "cut":
            files.cut(random)
        else:
            files.kill()
        found = durable.load(files, FOLDER / "state", Pushed) or Pushed()
        assert found.serial in (safe, number)
        safe = found.serial


@pytest.mark.parametrize("damage", [b"", b"CNST1", b"garbage" * 20])
def test_a_damaged_state_is_none(tmp_path: Path, damage: bytes) -> None:
    from citynet_gateway.spool.files import LocalFiles

    durable.save(LocalFiles(), tmp_path / "state", Pushed(serial=3))
    whole = (tmp_path / "state").read_bytes()
    assert durable.load(LocalFiles(), tmp_path / "state", Pushed) == Pushed(serial=3)
    for broken in (damage, whole[:-1], whole[:-1] + b"!"):
        (tmp_path / "state").write_bytes(broken)
        assert durable.load(LocalFiles(), tmp_path / "state", Pushed) is None


# --- commands


class Desk:
    """A gateway that carries commands out, dies at any moment, and remembers on the modelled file system."""

    def __init__(self, seed: int) -> None:
        self.random, self.files = Random(seed), SimFiles()
        self.done: list[str] = []
        self.memory = CommandMemory()

    def take(self, command: Command) -> CommandResult | None:
        """The answer; None if it died meanwhile."""
        try:
            answer = self.memory.judge(command, NOW_US)
            if answer is not None:
                return answer
            if refusal := self.memory.begin(command, NOW_US):
                return CommandResult(command.id, command.kind, "refused", refusal)
            durable.save(self.files, FOLDER / "commands", self.memory.entries())
            self.files.check("act")
            self.done.append(command.id)
            result = CommandResult(command.id, command.kind, "done")
            self.memory.finish(result)
            durable.save(self.files, FOLDER / "commands", self.memory.entries())
        except DiedError:
            self.restart()
            return None
        return result

    def restart(self) -> None:
        self.files.dies_in = None
        if self.random.random() < 0.5:
            self.files.cut(self.random)
        else:
            self.files.kill()
        self.memory = CommandMemory(durable.load(self.files, FOLDER / "commands", Entries))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 14)), max_size=40))
def test_a_command_is_carried_out_at_most_once(seed: int, steps: list[tuple[int, int | None]]) -> None:
    desk = Desk(seed)
    for number, dies_in in steps:
        desk.files.dies_in = dies_in
        answer = desk.take(order(number))
        desk.files.dies_in = None
        if answer is not None and answer.state == "done":
            assert desk.done.count(answer.id) == 1
    assert len(desk.done) == len(set(desk.done))
    for number in {number for number, _ in steps}:
        answer = desk.take(order(number))
        assert answer is not None
        assert answer.state in ("done", "interrupted")
        if answer.state == "done":
            assert answer.id in desk.done


def test_what_is_too_late_or_too_early_or_another_one_is_refused() -> None:
    memory = CommandMemory()
    late = memory.judge(order(1, deadline_us=NOW_US - SECOND_US), NOW_US)
    assert late is not None
    assert (late.state, late.reason) == ("refused", "expired 1.0 s ago")
    early = memory.judge(order(1, deadline_us=NOW_US + 100_000 * SECOND_US), NOW_US)
    assert early is not None
    assert early.state == "refused"
    assert memory.judge(order(1, deadline_us=5), None) is None, "without a clock no deadline can be judged"
    assert memory.begin(order(1), NOW_US) == ""
    other = memory.judge(order(1, kind="config-push"), NOW_US)
    assert other is not None
    assert other.reason == "this id was used before, for write-output"
    running = memory.judge(order(1), NOW_US)
    assert running is not None
    assert running.state == "trial"


def test_memory_is_bounded_and_forgets_only_what_would_be_refused() -> None:
    memory = CommandMemory()
    for number in range(COMMANDS_MAX):
        assert memory.begin(order(number), NOW_US) == ""
        memory.finish(CommandResult(f"c{number}", "write-output", "done", data={"x": "y" * 5_000}))
    assert len(msgspec.json.encode(memory.entries())) < durable.STATE_BYTES_MAX
    assert "none of them has expired" in memory.begin(order(1_000), NOW_US)
    later_us = NOW_US + 61 * SECOND_US + FORGET_AFTER_US
    fresh = order(1_000, deadline_us=later_us + SECOND_US)
    assert memory.begin(fresh, later_us) == ""
    again = memory.judge(order(0), later_us)
    assert again is not None
    assert again.state == "refused"


# --- pushed configuration


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(st.sampled_from(["push", "start", "link", "deadline", "tell"]), st.none() | st.integers(0, 6)),
        max_size=50,
    ),
)
def test_a_trial_is_confirmed_by_its_own_run_or_rolled_back(  # noqa: C901  (one dispatch)
    seed: int, steps: list[tuple[str, int | None]]
) -> None:
    """The gateway is a state on a file system, and what its run uses. It may die inside any step; then the next run starts."""
    random, files = Random(seed), SimFiles()
    state, runs, confirmed = Pushed(), {}, [""]
    using = ""

    def save(new: Pushed) -> Pushed:
        durable.save(files, FOLDER / "state", new)
        return new

    def start(found: Pushed) -> tuple[Pushed, str]:
        found = save(pushed_state.start(found, NOW_US))
        if found.trial is not None and found.trial.is_running:
            runs[found.trial.serial] = runs.get(found.trial.serial, 0) + 1
        return found, pushed_state.in_force(found)

    for number, (step, dies_in) in enumerate(steps, 1):
        files.dies_in = dies_in
        try:
            on_trial = state.trial is not None and state.trial.is_running
            if step == "push" and state.trial is None:
                state = save(pushed_state.push(state, f"config {number}", f"c{number}", 60))
            elif step == "start":
                state, using = start(state)
            elif step == "link" and on_trial:
                confirmed.append(using)  # from here on either may be found after a cut
                state = save(pushed_state.confirm(state, NOW_US))
                confirmed = [using]
            elif step == "deadline" and on_trial:
                state, using = start(save(pushed_state.roll_back(state, "no link", NOW_US)))
            elif step == "tell":
                for item in pushed_state.untold(state):
                    state = save(pushed_state.told(state, item.serial))
        except DiedError:
            files.dies_in = None
            if random.random() < 0.5:
                files.cut(random)
            else:
                files.kill()
            state, using = start(durable.load(files, FOLDER / "state", Pushed) or Pushed())
        files.dies_in = None
        is_trial = state.trial is not None and state.trial.is_running
        assert is_trial or using in confirmed or state.trial is not None, "what never proved itself is not in force"
        assert state.active in confirmed
        confirmed = [state.active] if step != "link" else confirmed
        assert all(count == 1 for count in runs.values()), "a trial runs once"
        assert len(state.history) <= pushed_state.HISTORY_MAX
        serials = [item.serial for item in state.history]
        assert serials == sorted(set(serials)), "every push ends once"


def test_a_second_push_waits_for_the_end_of_the_first() -> None:
    state = pushed_state.push(Pushed(), "a", "c1", 60)
    with pytest.raises(ValueError, match="another configuration is on trial"):
        pushed_state.push(state, "b", "c2", 60)
    assert pushed_state.in_force(state) == "", "not before the next start"
    running = pushed_state.start(state, NOW_US)
    assert pushed_state.in_force(running) == "a"
    back = pushed_state.start(running, NOW_US)
    assert (pushed_state.in_force(back), back.history[0].verdict) == ("", "rolled-back")
    assert [item.command for item in pushed_state.untold(back)] == ["c1"]
