"""Watermarks: silence proves nothing while readings may still be on their way."""

from __future__ import annotations

import pytest

from citynet_ingest.watermarks import SERVER, Watermarks

SETTLE = 10
AFTER = 30


def marks() -> Watermarks:
    return Watermarks(SETTLE, AFTER)


def test_a_gateway_without_backlog_moves_with_the_clock() -> None:
    w = marks()
    w.batch("gw", newest_us=5, backlog=0, received_us=1000)
    assert w.take() == {"gw": 990}
    assert w.take() == {}


def test_a_gateway_with_backlog_stands_at_its_newest_reading() -> None:
    w = marks()
    w.batch("gw", newest_us=500, backlog=7, received_us=1000)
    assert w.take() == {"gw": 500}
    w.batch("gw", newest_us=2000, backlog=7, received_us=1000)  # a clock that runs ahead does not run time ahead
    assert w.take() == {"gw": 990}


def test_a_silent_gateway_does_not_move() -> None:
    w = marks()
    w.connected(0)
    w.tick(1_000_000, is_drained=True)
    assert set(w.take()) == {SERVER}


def test_the_server_waits_after_a_reconnect_and_for_the_queue() -> None:
    w = marks()
    w.tick(1_000, is_drained=True)
    assert w.take() == {}, "not connected"
    w.connected(1_000)
    w.tick(1_020, is_drained=True)
    assert w.take() == {}, "just connected"
    w.tick(1_040, is_drained=False)
    assert w.take() == {}, "still busy"
    w.tick(1_040, is_drained=True)
    assert w.take() == {SERVER: 1_030}
    w.lost()
    w.tick(9_000, is_drained=True)
    assert w.take() == {}


def test_old_heartbeats_do_not_make_a_gateway_silent_again() -> None:
    w = marks()
    w.connected(0)
    w.alarm_batch("gw", backlog=900, received_us=1_000)
    w.tick(1_010, is_drained=True)
    assert w.take() == {}
    w.alarm_batch("gw", backlog=0, received_us=1_011)
    w.tick(1_012, is_drained=True)
    assert w.take() == {SERVER: 1_002}
    w.alarm_batch("gw", backlog=900, received_us=1_020)
    w.tick(1_060, is_drained=True)  # it died in the middle of its backlog
    assert w.take() == {SERVER: 1_050}


@pytest.mark.parametrize("step_s", [7200, 31, -7200, -3])
def test_after_a_step_of_the_clock_the_server_settles_anew(step_s: int) -> None:
    second = 1_000_000
    start_us = 100_000 * second
    w = Watermarks(10 * second, 30 * second)
    w.connected(start_us)
    w.tick(start_us + 40 * second, is_drained=True)
    assert w.take() == {SERVER: start_us + 30 * second}
    stepped_us = start_us + (41 + step_s) * second
    w.tick(stepped_us, is_drained=True)
    w.tick(stepped_us + 29 * second, is_drained=True)
    assert w.take() == {}, "nobody is called silent because a clock was set"
    w.tick(stepped_us + 30 * second, is_drained=True)
    assert w.take() == {SERVER: stepped_us + 20 * second}


def test_a_tick_that_comes_a_little_late_is_no_step() -> None:
    second = 1_000_000
    w = Watermarks(10 * second, 30 * second)
    w.connected(0)
    for now_s in (40, 41, 60, 90):
        w.tick(now_s * second, is_drained=True)
        assert w.take() == {SERVER: (now_s - 10) * second}


def test_a_direct_device_is_its_own_source() -> None:
    w = marks()
    w.connected(0)
    w.direct("lift-1")
    w.tick(100, is_drained=True)
    assert w.take() == {SERVER: 90, "lift-1": 90}
