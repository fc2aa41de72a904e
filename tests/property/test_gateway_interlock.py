"""One interlock: laws under random values and silences, and stories on a time line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from citynet_gateway.interlock import Cause, Change, Interlock
from citynet_gateway.interlock_settings import InterlockSettings, problem


def lock(**given_settings: object) -> InterlockSettings:
    base: dict[str, object] = {"name": "gas", "device": "d", "metric": "ch4", "output": "fan", "min_on_s": 0.1}
    base |= {} if "below" in given_settings else {"above": 10.0}
    return InterlockSettings.model_validate(base | given_settings)


class Line:
    """A time line: values come, time passes, and every change is written down with its moment."""

    def __init__(self, item: InterlockSettings, *, is_latched: bool = False) -> None:
        self.now_s = 0.0
        self.interlock = Interlock(item, 0.0, is_latched=is_latched)
        self.changes: list[tuple[float, bool, Cause]] = []

    def at(self, moment_s: float, value: float | None = None) -> bool:
        """Go to that moment as the gateway would: stepping whenever something is due. Then a value comes, if one is given."""
        while (due_s := self.interlock.due_at_s(self.now_s)) is not None and due_s <= moment_s:
            self.now_s = due_s
            self._note(self.interlock.step(due_s))
        self.now_s = moment_s
        if value is not None:
            self.interlock.see(value, moment_s)
        self._note(self.interlock.step(moment_s))
        return self.interlock.is_tripped

    def _note(self, change: Change | None) -> None:
        if change is not None:
            self.changes.append((round(self.now_s, 6), change.is_tripped, change.cause))


def test_it_starts_safe_and_a_good_reading_releases_it() -> None:
    line = Line(lock())
    assert line.at(0.0)
    assert not line.at(1.0, 5.0)
    assert line.at(2.0, 10.5)
    assert line.at(2.05, 9.0), "min_on_s"
    assert not line.at(2.1)
    assert line.changes == [(1.0, False, Cause.CLEAR), (2.0, True, Cause.LIMIT), (2.1, False, Cause.CLEAR)]


def test_hysteresis_and_delays() -> None:
    line = Line(lock(hysteresis=2.0, on_delay_s=5.0, off_delay_s=3.0, on_start="release"))
    line.at(1.0, 11.0)
    line.at(3.0, 9.9)  # not clear: within the hysteresis
    assert line.at(6.0)
    line.at(7.0, 8.5)
    assert line.at(10.0, 8.0), "clear since now"
    assert not line.at(13.0)
    line.at(20.0, 11.0)
    line.at(24.0, 7.0)  # clear in time
    assert not line.at(30.0)
    assert [item[:2] for item in line.changes] == [(6.0, True), (13.0, False)]


def test_below_and_the_limit_itself_is_within() -> None:
    line = Line(lock(below=3.0, on_start="release"))
    assert not line.at(1.0, 3.0)
    assert line.at(2.0, 2.9)


@pytest.mark.parametrize(("on_stale", "expected"), [("trip", True), ("hold", False), ("release", False)])
def test_silence(on_stale: str, expected: bool) -> None:
    line = Line(lock(on_stale=on_stale, stale_after_s=30.0))
    line.at(1.0, 5.0)
    assert not line.at(30.9)
    assert line.at(31.0) is expected
    line.at(40.0, 5.0)
    assert not line.at(41.0), "a reading ends the silence"


def test_silence_is_noticed_by_itself() -> None:
    line = Line(lock(stale_after_s=30.0))
    line.at(1.0, 5.0)
    line.at(500.0)
    assert line.changes[-1] == (31.0, True, Cause.STALE)


def test_an_input_that_never_comes_is_stale_too() -> None:
    assert Line(lock(on_start="release", stale_after_s=30.0)).at(30.0)
    assert not Line(lock(on_stale="release", stale_after_s=30.0)).at(30.0)


def test_a_latched_one_waits_for_a_person() -> None:
    line = Line(lock(latch=True))
    assert not line.at(1.0, 5.0), "the trip of the start does not latch"
    line.at(2.0, 11.0)
    assert line.interlock.reset(2.5) == (None, "its input is beyond the limit")
    assert line.at(3.0, 5.0)
    assert line.at(20.0, 5.0)
    change, refusal = line.interlock.reset(20.0)
    assert (change, refusal) == (Change(False, Cause.RESET, 5.0), "")
    assert line.interlock.reset(21.0) == (None, "it is not latched")


def test_a_latch_survives_and_needs_a_reading_before_its_reset() -> None:
    line = Line(lock(latch=True, on_start="release"), is_latched=True)
    assert line.at(1.0)
    assert line.interlock.reset(1.0)[1] == "there was no reading since the start"
    assert line.at(2.0, 5.0)
    assert line.interlock.reset(2.0)[1] == ""


def test_beyond_the_limit_from_the_start_latches_after_the_delay() -> None:
    line = Line(lock(latch=True, on_delay_s=2.0))
    line.at(1.0, 11.0)
    assert not line.interlock.is_latched
    line.at(3.0)
    assert line.interlock.is_latched


EVENTS = st.lists(
    st.tuples(st.floats(0.01, 8.0), st.none() | st.sampled_from([0.0, 9.0, 9.99, 10.0, 10.01, 50.0])), max_size=60
)


@settings(max_examples=300)
@given(
    EVENTS,
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.1, 3.0]),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
)
def test_laws(
    events: list[tuple[float, float | None]],
    on_delay_s: float,
    off_delay_s: float,
    min_on_s: float,
    min_off_s: float,
    latch: bool,
) -> None:
    item = lock(
        on_delay_s=on_delay_s,
        off_delay_s=off_delay_s,
        min_on_s=min_on_s,
        min_off_s=min_off_s,
        latch=latch,
        stale_after_s=10.0,
    )
    line = Line(item)
    moment_s, newest_s, value, beyond_since_s = 0.0, 0.0, None, None
    for step_s, new in events:
        moment_s += step_s
        is_tripped = line.at(moment_s, new)
        if new is not None:
            newest_s, value = moment_s, new
            beyond_since_s = (moment_s if beyond_since_s is None else beyond_since_s) if new > 10.0 else None
        settled = not line.changes or moment_s - line.changes[-1][0] >= min_off_s + 1e-6
        if settled and moment_s - newest_s >= 10.0 + 1e-6:
            assert is_tripped, "silence is dangerous"
        if settled and beyond_since_s is not None and moment_s - beyond_since_s >= on_delay_s + 1e-6:
            assert is_tripped, "beyond the limit for long enough"
        if not is_tripped:
            assert value is not None, "never released before a reading"
    for before, after in zip(line.changes, line.changes[1:], strict=False):
        assert before[1] != after[1]
        assert after[0] - before[0] >= (min_on_s if before[1] else min_off_s) - 1e-6, "flapping is bounded"
    if latch and any(is_tripped for _, is_tripped, _ in line.changes):
        assert line.interlock.is_tripped, "nothing releases it but a person"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"below": 1.0, "above": 2.0}, "not both"),
        ({"above": None}, "must be set"),
        ({"above": float("nan")}, "finite"),
        ({"name": "a b"}, "A-Z"),
    ],
)
def test_mistakes_are_told(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        lock(**wrong)


def test_interlocks_must_fit_together() -> None:
    assert problem([lock(), lock(name="b")], ["fan"]) == ""
    assert "stands twice" in problem([lock(), lock()], ["fan"])
    assert "agree on trip" in problem([lock(), lock(name="b", trip=False)], ["fan"])
    assert "no output is called fan" in problem([lock()], ["siren"])
