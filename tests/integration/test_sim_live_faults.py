"""Transport faults in a live run: what reaches the broker is what the truth file says, and what a file of that seed has."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from citynet.demo.judge import judge
from citynet.demo.judge import read_truth as read_for_judge
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.settings import load
from citynet_sim import export, live
from citynet_sim.settings import SimSettings
from citynet_sim.staging import simulation_of
from citynet_sim.truth import Truth, read_truth
from tests.integration.test_sim_mqtt import City, listening, multiset, written
from tests.patience import DEADLINE_S, wait_for

START_US = 1_767_225_600_000_000  # as in tests.integration.test_sim_mqtt.City
SCENARIO = """
about = "everything that can happen on the way, in ten minutes"
duration_s = 600
"""
FAULTS = {
    "loss": (30, 120, 0.3), "duplicate": (60, 240, 0.4), "reorder": (100, 200, 20.0), "delay": (200, 100, 40.0),
    "link-flap": (250, 150, 30.0), "gateway-reboot": (420, 40, 1.0), "power-cut": (480, 50, 1.0), "replay": (540, 20, 60.0),
}  # fmt: skip


def _settings(
    folder: Path, port: int, kinds: tuple[str, ...], hold_for_s: float | None = None, **more: object
) -> SimSettings:
    path = folder / "faulty.toml"
    entries = [
        f'[[fault]]\nkind = "{kind}"\nat_s = {at_s}\nhold_s = {hold_for_s or hold_s}\npeak = {peak}\n'
        + ('gateway = "gw-02"\n' if kind == "power-cut" else "")
        for kind, (at_s, hold_s, peak) in FAULTS.items()
        if kind in kinds
    ]
    path.write_text(SCENARIO + "".join(entries))
    city = {"population": 0, "devices": {"gas-well": 3, "water-meter": 2, "manhole": 3, "river-gauge": 1}}
    flags: dict[str, object] = {"broker": {"port": port}, "city": city, "sampling": {"every_s": 5.0}, "seed": 77}
    return load(SimSettings, None, flags | {"scenario": str(path), "speed": 100.0} | more)


def _sent(truth: Truth) -> Counter[tuple[str, str, tuple[Reading, ...]]]:
    return Counter((m.gateway, m.device, m.readings) for m in truth.messages if m.lost is None)


def _key(reading: Reading) -> tuple[str, str, int, float]:
    return reading.device, reading.metric, reading.time_us, reading.value


@pytest.mark.parametrize("kinds", [*((kind,) for kind in FAULTS), tuple(FAULTS)], ids=[*FAULTS, "all"])
def test_a_live_run_has_the_fate_of_a_file_and_is_judged_lossless(
    broker: EmbeddedMosquitto, folder: Path, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    settings = _settings(folder, broker.port, kinds, pack_max=1)
    truth_path = tmp_path / "truth.jsonl"
    with listening(broker.port) as listener:
        end = City(settings, truth_path, duration_s=600.0).end()
        wait_for(lambda: len(listener.messages) >= end.acked, "all messages have arrived")
    truth = read_truth(truth_path)
    assert {fault["kind"] for fault in truth.header["faults"]} == set(kinds)
    assert end.acked + end.lost == end.sent == len(truth.messages)
    assert multiset(listener.messages) == _sent(truth)
    stored = [_key(reading) for _, _, readings in listener.messages for reading in readings]
    verdict = judge(read_for_judge(truth_path), stored)
    assert verdict.is_clean
    assert not judge(read_for_judge(truth_path), stored[1:]).is_clean

    path = tmp_path / "same.jsonl"
    export.write(simulation_of(settings, START_US), START_US, START_US + 600_000_000, path, lambda *_: None)
    filed = Counter(
        (row["device"], row["time_us"], tuple(row["values"].values()))
        for row in map(json.loads, path.read_text().splitlines())
    )
    live = Counter(
        (device, readings[0].time_us, tuple(r.value for r in readings)) for _, device, readings in listener.messages
    )
    assert live == filed


def test_lost_messages_and_copies_are_told_apart(broker: EmbeddedMosquitto, folder: Path, tmp_path: Path) -> None:
    settings = _settings(folder, broker.port, ("loss", "duplicate"), pack_max=1)
    with listening(broker.port):
        City(settings, tmp_path / "truth.jsonl", duration_s=600.0).end()
    truth = read_truth(tmp_path / "truth.jsonl")
    lost = [m for m in truth.messages if m.lost is not None]
    copies = [m for m in truth.messages if m.is_copy]
    assert {m.lost for m in lost} == {"transport"}
    during = [m for m in truth.messages if 30 <= (m.readings[0].time_us - START_US) / 1e6 < 150 and not m.is_copy]
    assert 0.15 < len(lost) / len(during) < 0.45
    originals = {(m.device, m.readings) for m in truth.messages if not m.is_copy and m.lost is None}
    assert copies
    assert all((m.device, m.readings) in originals for m in copies)


def test_faster_than_time_samples_share_messages_and_say_the_same(
    broker: EmbeddedMosquitto, folder: Path, tmp_path: Path
) -> None:
    """Another speed, other messages, the same readings; and the same messages for the same speed."""
    found = []
    for number, (speed, pack_max) in enumerate([(100.0, 1), (1000.0, 100), (1000.0, 100), (4000.0, 7)]):
        settings = _settings(folder, broker.port, ("duplicate",), speed=speed, pack_max=pack_max)
        path = tmp_path / f"{number}.jsonl"
        with listening(broker.port) as listener:
            end = City(settings, path, duration_s=600.0).end()
            wait_for(lambda seen=listener, all_=end: len(seen.messages) >= all_.sent, "all messages have arrived")  # type: ignore[misc]
        truth = read_truth(path)
        assert multiset(listener.messages) == written(truth)
        assert max(len({r.time_us for r in m.readings}) for m in truth.messages) <= pack_max
        found.append(truth)
    readings = [Counter(_key(r) for m in truth.messages for r in m.readings) for truth in found]
    assert readings[0] == readings[1] == readings[2] == readings[3]
    assert len(found[1].messages) < len(found[0].messages) / 20
    assert written(found[1]) == written(found[2])


def test_what_is_in_the_air_at_a_stop_is_written_down(
    broker: EmbeddedMosquitto, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "DRAIN_STOPPED_S", DEADLINE_S)  # for a slow broker's last answers
    # Until it is stopped, however late that is, something is in the air.
    settings = _settings(folder, broker.port, ("delay",), hold_for_s=36_000.0, speed=100.0, pack_max=1)
    with listening(broker.port) as listener:
        city = City(settings, tmp_path / "truth.jsonl")
        wait_for(lambda: (tmp_path / "truth.jsonl").exists() and city.lines("msg") > 9 * 42, "the delay has begun")
        city.stop()
        end = city.end()
        wait_for(lambda: len(listener.messages) >= end.acked, "all messages have arrived")
    truth = read_truth(tmp_path / "truth.jsonl")
    stopped = [m for m in truth.messages if m.lost == "stopped"]
    assert stopped
    assert all(m.readings[0].time_us - START_US >= 200_000_000 for m in stopped)
    assert multiset(listener.messages) == _sent(truth)


def test_a_thousand_times_faster_than_time(broker: EmbeddedMosquitto, folder: Path, tmp_path: Path) -> None:
    """The whole default city at a sample a minute: an hour in a few seconds, told as simulated time."""
    flags = {"broker": {"port": broker.port}, "sampling": {"every_s": 60.0}, "speed": 1000.0, "scenario": "calm"}
    settings = load(SimSettings, None, flags)
    with listening(broker.port) as listener:
        began_s = time.monotonic()
        end = City(settings, tmp_path / "truth.jsonl", duration_s=3600.0).end()
        print(f"an hour of 558 devices in {time.monotonic() - began_s:.1f} s")
        wait_for(lambda: len(listener.messages) >= end.sent, "all messages have arrived")
    truth = read_truth(tmp_path / "truth.jsonl")
    assert end.acked == end.sent
    assert multiset(listener.messages) == written(truth)
    times = [r.time_us for m in truth.messages for r in m.readings]
    assert START_US <= min(times) < START_US + 120_000_000
    assert START_US + 3_480_000_000 < max(times) < START_US + 3_600_000_000
