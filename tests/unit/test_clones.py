"""Two machines under one id are told from one machine that restarts."""

from __future__ import annotations

from citynet_gateway.takeover import CUTS_MIN, SESSION_TAKEN_OVER, SPREAD_S, TELL_AGAIN_S, WINDOW_S, Cuts
from citynet_ingest.clones import RETURNS_MIN, TELL_AGAIN_US, WINDOW_US, EpochWatch

S = 1_000_000


def sightings(turns: list[tuple[int, int]], stream: str = "alarm") -> list[int]:
    """Moments (s) at which a clone was told, for (epoch, moment in s)."""
    watch = EpochWatch()
    return [at_s for epoch, at_s in turns if watch.moved("gw-1", stream, epoch, at_s * S) is not None]


def test_a_gateway_that_restarts_often_is_one_machine() -> None:
    assert sightings([(epoch, epoch * 10) for epoch in range(1, 100)]) == []


def test_one_return_is_honest() -> None:
    """The server was restored from a backup: the gateway sends the old epoch again, then goes on with the new one."""
    assert sightings([(1, 0), (2, 10), (1, 20), (1, 21), (2, 600 + 30)]) == []


def test_epochs_that_take_turns_are_two_machines_and_told_once_a_minute() -> None:
    turns = [(1 + k % 2, k) for k in range(130)]
    assert sightings(turns) == [
        RETURNS_MIN + 1,
        RETURNS_MIN + 1 + TELL_AGAIN_US // S,
        RETURNS_MIN + 1 + 2 * TELL_AGAIN_US // S,
    ]


def test_the_rival_is_named() -> None:
    watch = EpochWatch()
    found = [watch.moved("gw-1", "alarm", epoch, k) for k, epoch in enumerate([7, 9, 7, 9])]
    assert found == [None, None, None, 7]


def test_returns_far_apart_and_other_streams_and_gateways_do_not_add_up() -> None:
    assert sightings([(1 + k % 2, k * (WINDOW_US // S)) for k in range(20)]) == []
    watch = EpochWatch()
    told = [
        watch.moved(f"gw-{k}", stream, epoch, k)
        for k in range(20)
        for stream, epoch in (("telemetry", 1), ("alarm", 2), ("telemetry", 1))
    ]
    assert set(told) == {None}


def test_a_gateway_that_is_told_of_the_takeover_says_so_the_second_time() -> None:
    cuts = Cuts()
    assert cuts.cut(SESSION_TAKEN_OVER, 0.0) is None
    meaning = cuts.cut(SESSION_TAKEN_OVER, 5.0)
    assert meaning is not None
    assert "cloned" in meaning
    assert cuts.cut(SESSION_TAKEN_OVER, 5.0 + TELL_AGAIN_S / 2) is None
    assert cuts.cut(SESSION_TAKEN_OVER, 5.0 + TELL_AGAIN_S) is not None


def test_a_gateway_that_is_only_cut_off_needs_more_of_it() -> None:
    cuts = Cuts()
    told = [cuts.cut(0x80, float(k)) for k in range(CUTS_MIN)]
    assert told[:-1] == [None] * (CUTS_MIN - 1)
    assert told[-1] is not None
    assert "or a broker in trouble" in told[-1]
    rare = Cuts()
    assert {rare.cut(SESSION_TAKEN_OVER, k * WINDOW_S) for k in range(20)} == {None}


def test_two_machines_do_not_come_back_in_step() -> None:
    """Else each has a second at a time, and an answer that takes longer never arrives."""
    told, cut = Cuts(), Cuts()
    assert told.spread_s(0.0) == 1
    told.cut(SESSION_TAKEN_OVER, 0.0)
    assert told.spread_s(0.0) == 1, "it may have been our own connection"
    told.cut(SESSION_TAKEN_OVER, 5.0)
    assert told.spread_s(5.0) == SPREAD_S
    for k in range(CUTS_MIN):
        assert cut.spread_s(float(k)) == 1
        cut.cut(0x80, float(k))
    assert cut.spread_s(float(CUTS_MIN)) == SPREAD_S
    assert cut.spread_s(2 * WINDOW_S) == 1, "that was long ago"
