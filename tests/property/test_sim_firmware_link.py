"""The way of a live device under transport faults: laws of its fate; the firmware over it loses nothing while it has room."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citynet.errors import ConfigError
from citynet_sim.catalogue import CATALOGUE
from citynet_sim.faults import TRANSPORT, Fault
from citynet_sim.firmware.link import Fate, Link, check
from citynet_sim.firmware.machine import Action, Firmware, GaveUp, Mode, Options, Send

US = 1_000_000
START_US = 1_767_225_600 * US
PEAKS = {
    "loss": 0.5,
    "duplicate": 0.5,
    "reorder": 8.0,
    "delay": 3.0,
    "link-flap": 5.0,
    "gateway-reboot": 1.0,
    "power-cut": 1.0,
}


def fault(kind: str, from_s: int = 10, to_s: int = 60, peak: float | None = None) -> Fault:
    about = CATALOGUE[kind]
    peaks = (PEAKS[kind] if peak is None else peak,)
    return Fault(
        f"{kind}-1", TRANSPORT, kind, "device", "", "", (), peaks, "", START_US + from_s * US, START_US + to_s * US,
        1e-3, about.decay_s, "test", gateways=("gw-01",),
    )  # fmt: skip


def link(*kinds: str, gateway: str = "gw-01") -> Link:
    return Link(3, "gas-0001", gateway, [fault(kind) for kind in kinds])


def test_what_each_fault_does_and_only_in_its_time() -> None:
    during, after = START_US + 12 * US, START_US + 60 * US
    for kind in PEAKS:
        assert link(kind).fate(after, 1, 1) == Fate()
        assert link(kind, gateway="gw-02").fate(during, 1, 1) == Fate()
    assert link("gateway-reboot").fate(during, 1, 1).is_down
    assert [link("link-flap").is_down(START_US + k * US) for k in (9, 10, 14, 15, 19, 20, 60)] == [
        False, True, True, False, False, True, False,
    ]  # fmt: skip
    assert link("delay").fate(during, 1, 1) == Fate(delay_us=3 * US)
    assert not link("power-cut").is_powered(during)
    assert link("power-cut").is_powered(after)
    fates = [link("loss").fate(during, seq, 1).is_lost for seq in range(400)]
    assert 140 < sum(fates) < 260
    assert 140 < sum(link("duplicate").fate(during, seq, 1).copies == 2 for seq in range(400)) < 260
    delays = [link("reorder").fate(during, seq, 1).delay_us for seq in range(50)]
    assert 0 <= min(delays) < max(delays) < 8 * US
    assert len(set(delays)) == 50
    # the next attempt is another draw
    assert {link("loss").fate(during, 1, attempt).is_lost for attempt in range(1, 40)} == {False, True}


def test_a_replay_is_refused_by_name() -> None:
    check([fault("loss")])
    replay = CATALOGUE["replay"]
    with pytest.raises(ConfigError, match="replay-1: devices of `sim serve` do not replay"):
        check([Fault("replay-1", TRANSPORT, replay.name, "device", "", "", (), (1.0,), "", 0, 1, 1.0, 1.0, "x")])


class Bench:
    """The firmware over a link, with a clock of its own; what arrives is answered at once."""

    def __init__(self, way: Link, ack_s: float) -> None:
        self.way = way
        self.device = Firmware(Options(ack_s=ack_s, retry_s=0.5, retry_s_max=4.0, boot_s=1.0))
        self.arrived: list[int] = []
        self._under_way: list[tuple[int, int, int]] = []  # arrival, number, sequence
        self._sent = 0

    def step(self, now_us: int, sample: float | None) -> None:
        is_on = self.way.is_powered(now_us)
        if is_on == (self.device.mode is Mode.OFF):
            self.device.power(now_us, on=is_on)
        if sample is not None:
            self.take(now_us, self.device.sample(now_us, now_us, {"a": sample}))
        self.take(now_us, self.device.tick(now_us))
        while self._under_way and self._under_way[0][0] <= now_us:
            seq = heapq.heappop(self._under_way)[2]
            self.arrived.append(seq)
            self.take(now_us, self.device.acked(now_us, seq))

    def take(self, now_us: int, actions: list[Action]) -> None:
        for action in actions:
            assert not isinstance(action, GaveUp)
            if isinstance(action, Send):
                fate = self.way.fate(now_us, action.report.seq, action.attempt)
                if fate.is_down:
                    self.device.failed(now_us)
                for _ in range(0 if fate.is_down or fate.is_lost else fate.copies):
                    self._sent += 1
                    heapq.heappush(self._under_way, (now_us + fate.delay_us, self._sent, action.report.seq))


@settings(deadline=None, max_examples=40)
@given(st.sets(st.sampled_from(sorted(PEAKS)), min_size=1), st.integers(0, 2**32), st.sampled_from([1.0, 7.0]))
def test_faults_compose_and_no_report_goes_missing(kinds: set[str], seed: int, ack_s: float) -> None:
    """When the faults are over, everything the device took is there, in order, whatever came twice."""
    bench = Bench(Link(seed, "gas-0001", "gw-01", [fault(kind) for kind in sorted(kinds)]), ack_s)
    for step in range(300):
        bench.step(START_US + step * US // 2, float(step) if step % 4 == 0 and step < 240 else None)
    assert not bench.device.buffer
    assert list(dict.fromkeys(bench.arrived)) == list(range(1, bench.device.counters.reports + 1))
