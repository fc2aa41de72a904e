"""Laws of the simulated firmware: nothing is dropped while there is room, numbers rise, what it holds back says nothing new."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citynet_sim.firmware.machine import (
    JITTER_SHARE,
    Action,
    Booted,
    Cause,
    ConfigurationError,
    Firmware,
    GaveUp,
    Mode,
    Options,
    Report,
    Send,
)

US = 1_000_000
options = st.builds(
    Options,
    interval_s=st.sampled_from([0.0, 5.0]),
    deadband=st.none() | st.fixed_dictionaries({}, optional={"a": st.sampled_from([0.0, 0.5, 2.0])}),
    heartbeat_s=st.sampled_from([10.0, 60.0]),
    buffer_max=st.integers(1, 4),
    ack_s=st.sampled_from([2.0, 20.0]),
    retry_s=st.just(1.0),
    retry_s_max=st.sampled_from([1.0, 8.0]),
    watchdog_s=st.just(6.0),
)
value = st.integers(-8, 8).map(lambda k: k / 4)
event = st.one_of(
    st.tuples(st.just("sample"), st.fixed_dictionaries({"a": value, "b": value})),
    st.sampled_from(["ack", "late", "fail", "hang", "reboot", "off", "on", "update", "bad-update"]).map(
        lambda e: (e, {})
    ),
)
stories = st.lists(st.tuples(st.integers(0, 12), event), max_size=60)


class Bench:
    """Runs a story and keeps what came of it."""

    def __init__(self, chosen: Options) -> None:
        self.device = Firmware(chosen)
        self.now_us = 1_000 * US
        self.sends: list[Send] = []
        self.gone: list[Report] = []
        self.acked: list[int] = []
        self.known: dict[str, float] = {}  # what was last reported
        self.made = 0

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.sends.append(action)
            elif isinstance(action, GaveUp):
                self.gone.append(action.report)

    def pass_to(self, until_us: int) -> None:
        """Time passes; timers fire when they are due."""
        while (due_us := self.device.due_us) is not None and due_us <= until_us:
            assert due_us >= self.now_us - 1, "a timer in the past"
            self.now_us = max(self.now_us, due_us)
            self.take(self.device.tick(self.now_us))
            assert (
                self.device.due_us is None or self.device.due_us > due_us or self.device.due_us <= self.now_us + 60 * US
            )
        self.now_us = until_us

    def happen(self, name: str, values: dict[str, float]) -> None:
        device, now_us = self.device, self.now_us
        if name == "sample":
            self.take(device.sample(now_us, now_us, values))
        elif name in ("ack", "late") and self.sends:
            seq = self.sends[-1].report.seq if name == "ack" else self.sends[0].report.seq
            before = device.counters.acked
            self.take(device.acked(now_us, seq))
            self.acked += [seq] * (device.counters.acked - before)
        elif name == "fail":
            self.take(device.failed(now_us))
        elif name == "hang":
            device.hang(now_us)
        elif name == "reboot":
            device.reboot(now_us)
        elif name in ("off", "on"):
            device.power(now_us, on=name == "on")
        elif name in ("update", "bad-update"):
            device.update(now_us, f"{name}-{now_us}", sound=name == "update")


def play(chosen: Options, story: list[tuple[int, tuple[str, dict[str, float]]]]) -> Bench:
    bench = Bench(chosen)
    for wait_s, (name, values) in story:
        bench.pass_to(bench.now_us + wait_s * US)
        room = chosen.buffer_max - len(bench.device.buffer)
        gone = len(bench.gone)
        bench.happen(name, values)
        assert len(bench.gone) == gone or room <= 0, "dropped although there was room"
        _check(bench, chosen)
    return bench


def _check(bench: Bench, chosen: Options) -> None:
    count, device = bench.device.counters, bench.device
    assert count.reports == count.acked + count.given_up + len(device.buffer)
    assert count.samples == count.missed + count.skipped + count.held_back + count.reports
    assert len(device.buffer) <= chosen.buffer_max + 1  # one that was handed over is never dropped
    assert [r.seq for r in device.buffer] == sorted({r.seq for r in device.buffer})
    assert bench.acked == sorted(set(bench.acked)), "acknowledged in order, each once"
    sent = {send.report.seq for send in bench.sends}
    assert sent.isdisjoint(report.seq for report in bench.gone), "gave up what was handed over"
    if device.mode is Mode.RUNNING and device.buffer:
        assert device.due_us is not None, "reports wait and nothing will ever happen"


@settings(max_examples=120)
@given(options, stories)
def test_nothing_is_dropped_while_there_is_room_and_numbers_rise(
    chosen: Options, story: list[tuple[int, tuple[str, dict[str, float]]]]
) -> None:
    bench = play(chosen, story)
    firsts = [send.report.seq for send in bench.sends if send.attempt == 1]
    assert all(a < b for a, b in pairwise(firsts))
    seen: set[int] = set()
    for earlier, later in pairwise(bench.sends):
        seen.add(earlier.report.seq)
        assert later.report.seq == earlier.report.seq or later.report.seq not in seen, "went back behind a later one"


@settings(max_examples=100)
@given(options, stories)
def test_whatever_happened_a_link_that_works_brings_everything_home(
    chosen: Options, story: list[tuple[int, tuple[str, dict[str, float]]]]
) -> None:
    bench = play(chosen, story)
    bench.device.power(bench.now_us, on=True)
    for _ in range(200):
        if not bench.device.buffer:
            break
        due_us = bench.device.due_us
        assert due_us is not None
        answered = len(bench.sends)
        bench.pass_to(max(due_us, bench.now_us))
        if len(bench.sends) > answered or bench.device.mode is Mode.RUNNING:
            bench.happen("ack", {})
    assert not bench.device.buffer
    assert bench.device.counters.reports == bench.device.counters.acked + bench.device.counters.given_up


@settings(max_examples=120)
@given(options, st.lists(st.tuples(st.integers(1, 12), st.fixed_dictionaries({"a": value, "b": value})), min_size=1))
def test_what_is_held_back_says_nothing_new(chosen: Options, samples: list[tuple[int, dict[str, float]]]) -> None:
    """A gateway that has every report knows every metric to within its deadband, and never waits long for a whole one."""
    device, now_us, known, whole_us = Firmware(chosen), 0, {}, []
    taken_us: list[int] = []
    for wait_s, values in samples:
        now_us += wait_s * US
        before = device.counters.skipped
        for action in device.sample(now_us, now_us, values):
            if isinstance(action, Send):
                device.acked(now_us, action.report.seq)
                if action.report.cause is Cause.CHANGE and chosen.deadband is not None:  # and nothing old is said again
                    assert all(abs(known[k] - v) > chosen.deadband.get(k, 0.0) for k, v in action.report.values.items())
                known.update(action.report.values)
                if action.report.cause in (Cause.START, Cause.HEARTBEAT):
                    assert action.report.values == values
                whole_us += [now_us] if action.report.values == values else []
        if device.counters.skipped > before:
            assert now_us - taken_us[-1] < (1 - JITTER_SHARE) * chosen.interval_s * US
            continue
        taken_us.append(now_us)
        band = {} if chosen.deadband is None else chosen.deadband
        for metric, found in values.items():
            assert abs(known[metric] - found) <= band.get(metric, 0.0)
        if chosen.deadband is not None:
            assert now_us - whole_us[-1] < chosen.heartbeat_s * US


def test_back_off_grows_to_its_bound_and_starts_anew() -> None:
    device = Firmware(Options(retry_s=1.0, retry_s_max=5.0, ack_s=2.0))
    now_us = 0
    assert device.sample(now_us, now_us, {"a": 1.0})
    waits = []
    for _ in range(5):
        device.failed(now_us)
        assert device.due_us is not None
        waits.append((device.due_us - now_us) / US)
        now_us = device.due_us
        (again,) = device.tick(now_us)
        assert isinstance(again, Send)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert device.acked(now_us, 1) == []
    device.sample(now_us, now_us, {"a": 2.0})
    device.failed(now_us)
    assert device.due_us == now_us + US
    assert device.counters.attempts == 7


def test_an_answer_that_stays_away_is_a_failure_and_one_that_comes_late_counts() -> None:
    device = Firmware(Options(ack_s=2.0, retry_s=1.0))
    device.sample(0, 0, {"a": 1.0})
    assert device.due_us == 2 * US
    assert device.tick(2 * US) == []
    assert device.acked(2 * US + 1, 1) == []
    assert not device.buffer
    assert device.is_asleep


def test_a_version_that_hangs_is_taken_back_by_the_watchdog() -> None:
    device = Firmware(Options(update_s=10.0, boot_s=2.0, watchdog_s=30.0), version="1.0.0")
    device.update(0, "2.0.0", sound=False)
    seen, boots, now_us = [], [], 0
    while (due_us := device.due_us) is not None:
        now_us = due_us
        boots += [action for action in device.tick(now_us) if isinstance(action, Booted)]
        seen.append((now_us // US, device.mode, device.version))
    assert seen == [
        (10, Mode.BOOTING, "2.0.0"),
        (12, Mode.HUNG, "2.0.0"),
        (42, Mode.BOOTING, "1.0.0"),
        (44, Mode.RUNNING, "1.0.0"),
    ]
    assert boots == [Booted("watchdog", "1.0.0")]
    assert (device.counters.watchdog, device.counters.rolled_back) == (1, 1)


def test_power_that_goes_in_the_middle_of_an_update_leaves_the_old_version() -> None:
    device = Firmware(Options(update_s=10.0, boot_s=2.0))
    device.update(0, "2.0.0", sound=False)
    device.power(5 * US, on=False)
    assert device.due_us is None
    device.power(60 * US, on=True)
    assert device.tick(62 * US) == [Booted("power", "1.0.0")]
    assert device.mode is Mode.RUNNING


def test_the_buffer_and_the_sequence_outlive_a_power_cut() -> None:
    device = Firmware(Options(boot_s=1.0))
    device.sample(0, 0, {"a": 1.0})
    device.sample(US, US, {"a": 2.0})
    device.power(2 * US, on=False)
    assert device.sample(3 * US, 3 * US, {"a": 3.0}) == []
    device.power(4 * US, on=True)
    booted, again = device.tick(5 * US)
    assert isinstance(booted, Booted)
    assert isinstance(again, Send)
    assert (again.report.seq, again.attempt) == (1, 2)
    (following,) = device.acked(5 * US, 1)
    assert isinstance(following, Send)
    assert following.report.seq == 2
    device.sample(6 * US, 6 * US, {"a": 4.0})
    assert [report.seq for report in device.buffer] == [2, 3]
    assert device.counters.missed == 1


def test_configuration_from_afar_is_taken_whole_or_not_at_all() -> None:
    device = Firmware()
    assert device.configure({"interval_s": 60, "deadband": {"a": 0.5}}) == 1
    assert device.options.interval_s == 60
    kept = device.options
    for changes, said in [
        ({"interval": 1}, "'interval': no such option"),
        ({"heartbeat_s": 0}, "heartbeat_s: 0 is not in 1..604800"),
        ({"interval_s": 5, "buffer_max": 1.5}, "buffer_max: 1.5 is no whole number"),
        ({"deadband": {"a": -1}}, "deadband.a: -1 is no number from 0 on"),
        ({"retry_s": 600.0}, "retry_s: 600 is above retry_s_max 60"),
        ({"watchdog_s": True}, "watchdog_s: True is not in 1..3600"),
    ]:
        with pytest.raises(ConfigurationError, match=said.replace(".", r"\.")):
            device.configure(changes)
        assert device.options is kept
    assert device.revision == 1
