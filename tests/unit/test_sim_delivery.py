"""Bookkeeping of delivery: buffers, the ledger, the city's clock."""

from __future__ import annotations

import pytest

from citynet_sim.device import Message
from citynet_sim.ledger import Ledger
from citynet_sim.live import CityClock
from citynet_sim.publisher import Outbox


def _message(number: int, device: str) -> Message:
    return Message(number, "gw-01", device, f"field/gw-01/{device}", "text/plain", b"")


def test_full_buffer_gives_up_the_oldest_of_the_same_device() -> None:
    outbox = Outbox(per_device_max=2)
    given_up = [outbox.put(_message(n, device)) for n, device in [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "a")]]
    assert given_up == [None, None, None, 1, 3]
    assert [outbox.take().number for _ in range(len(outbox))] == [2, 4, 5]
    with pytest.raises(KeyError):
        outbox.take()


def test_taking_makes_room_again() -> None:
    outbox = Outbox(per_device_max=1)
    assert outbox.put(_message(1, "a")) is None
    assert outbox.take().number == 1
    assert outbox.put(_message(2, "a")) is None
    assert outbox.clear() == [2]
    assert outbox.put(_message(3, "a")) is None


def test_ledger_tells_each_acknowledgement_once() -> None:
    ledger = Ledger()
    assert ledger.news() is None
    for number in (1, 2, 5, 4):
        ledger.acknowledge(number)
    assert ledger.news() == (2, [4, 5])
    assert ledger.news() is None
    ledger.give_up(3)
    assert ledger.news() == (5, [])
    assert (ledger.acked, ledger.lost) == (4, 1)


def test_clock_runs_at_its_speed() -> None:
    clock = CityClock(start_us=1_000_000, speed=10.0, monotonic_s=50.0)
    assert clock.wait_s(1_000_000, 50.0) == 0.0
    assert clock.wait_s(11_000_000, 50.0) == 1.0
    assert clock.wait_s(11_000_000, 52.0) == -1.0
