"""Two machines under one id are told from one machine that restarts."""

from __future__ import annotations

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
