"""How fast batches go out: the cap, and what is on its way."""

from __future__ import annotations

from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.pacing import DELAY_S_MAX, INFLIGHT_BYTES_FIRST, INFLIGHT_BYTES_MIN, Pacer


def test_the_cap_holds_on_average_and_alarms_pass() -> None:
    pacer, now_s, sent = Pacer(1_000), 0.0, 0
    for step in range(1_000):
        now_s = step * 0.1
        if pacer.may_send(TELEMETRY, now_s):
            pacer.sent(step, 500, now_s)
            pacer.delivered(step, now_s)
            sent += 500
        assert pacer.may_send(ALARM, now_s)
    assert 0.95 * 100_000 <= sent <= 100_000 + 1_500


def test_what_alarms_took_telemetry_waits_for() -> None:
    pacer = Pacer(1_000)
    assert pacer.may_send(TELEMETRY, 0.0)
    pacer.sent(1, 6_000, 0.0)
    pacer.delivered(1, 0.0)
    assert pacer.free_at_s(0.0) == 5.0
    assert not pacer.may_send(TELEMETRY, 4.9)
    assert pacer.may_send(TELEMETRY, 5.1)


def thin_link(rate_bytes_s: float, way_s: float, size: int) -> float:
    """Telemetry over a link of that rate for two minutes; the longest that a batch waited for it in the second one."""
    pacer, free_s, flying, now_s, longest_s = Pacer(), 0.0, [], 0.0, 0.0
    for number in range(12_000):
        now_s = number * 0.01
        while flying and flying[0][0] <= now_s:
            pacer.delivered(flying.pop(0)[1], now_s)
        while pacer.may_send(TELEMETRY, now_s):
            free_s = max(free_s, now_s) + size / rate_bytes_s
            pacer.sent(number * 100 + len(flying), size, now_s)
            flying.append((free_s + way_s, number * 100 + len(flying)))
            longest_s = max(longest_s, free_s - now_s) if now_s > 60 else 0.0
            if len(flying) > 64:
                break
    return longest_s


def test_a_thin_link_is_filled_and_not_queued_on() -> None:
    assert 0.5 < thin_link(8_000, 0.6, 3_000) < 1.5 * DELAY_S_MAX


def test_a_broad_link_opens_the_bound_and_a_new_connection_starts_small() -> None:
    pacer = Pacer()
    for number in range(100):
        pacer.sent(number, 5_000, number * 0.01)
        pacer.delivered(number, number * 0.01 + 0.005)
    assert pacer.inflight_bytes_max > 20 * INFLIGHT_BYTES_FIRST
    pacer.sent(7, 5_000, 2.0)
    pacer.part()
    assert (pacer.inflight_bytes, pacer.inflight_bytes_max) == (0, INFLIGHT_BYTES_FIRST)
    pacer.delivered(7, 2.1)
    assert pacer.inflight_bytes == 0


def test_one_batch_may_always_go_however_slow_the_link_is() -> None:
    pacer = Pacer()
    for number in range(50):
        assert pacer.may_send(TELEMETRY, number * 10.0)
        pacer.sent(number, 200_000, number * 10.0)
        assert not pacer.may_send(TELEMETRY, number * 10.0)
        pacer.delivered(number, number * 10.0 + 9.0)
    assert pacer.inflight_bytes_max == INFLIGHT_BYTES_MIN
