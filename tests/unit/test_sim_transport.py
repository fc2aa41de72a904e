"""Transport faults: labelled changes of the stream of messages, and the file that shows them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from citynet.errors import ConfigError
from citynet_sim import export, transport
from citynet_sim.city import CityParameters, build
from citynet_sim.faults import TRANSPORT, Fault
from citynet_sim.kinds import KINDS
from citynet_sim.simulation import Simulation

MINUTE_US = 60_000_000
AT_US = np.arange(0, 3600, dtype=np.int64) * 1_000_000
CITY = build(2, CityParameters(population=0, devices={"manhole": 4, "gas-well": 4}))


def _fault(kind: str, peak: float, start_min: int = 20, end_min: int = 40, gateway: str = "gw-01") -> Fault:
    return Fault(
        f"{kind}-1", TRANSPORT, kind, "device", "", "", (), (peak,), "", start_min * MINUTE_US, end_min * MINUTE_US,
        1e-3, 600.0, "test", gateways=(gateway,),
    )  # fmt: skip


def _deliver(*faults: Fault) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return transport.deliver(1, "mh-0001", AT_US, faults)


def test_loss_takes_its_share_in_its_span_only() -> None:
    position, arrival = _deliver(_fault("loss", 0.3))
    gone = np.setdiff1d(np.arange(3600), position)
    assert ((gone >= 1200) & (gone < 2400)).all()
    assert 300 < len(gone) < 420
    assert np.array_equal(arrival, AT_US[position])


def test_duplicates_come_later() -> None:
    position, arrival = _deliver(_fault("duplicate", 0.25))
    counts = np.bincount(position, minlength=3600)
    twice = np.flatnonzero(counts == 2)
    assert counts.max() == 2
    assert counts.min() == 1
    assert 240 < len(twice) < 360
    assert ((twice >= 1200) & (twice < 2400)).all()
    assert (arrival >= AT_US[position]).all()


def test_delay_and_reorder_only_make_late() -> None:
    _, late = _deliver(_fault("delay", 120.0))
    assert set(((late - AT_US) // 1_000_000).tolist()) == {0, 120}
    _, mixed = _deliver(_fault("reorder", 60.0))
    assert (np.diff(mixed) < 0).sum() > 0
    assert (mixed - AT_US).max() <= 60_000_000
    assert (mixed >= AT_US).all()


def test_flapping_link_holds_messages_back_and_loses_none() -> None:
    position, arrival = _deliver(_fault("link-flap", 120.0))
    assert len(position) == 3600
    held = arrival - AT_US
    assert held.max() <= 120_000_000
    down = (AT_US >= 20 * MINUTE_US) & (AT_US < 40 * MINUTE_US) & (((AT_US - 20 * MINUTE_US) // 120_000_000) % 2 == 0)
    assert (held[down] > 0).all()
    assert not held[~down].any()


def test_power_cut_silences_and_reboot_holds() -> None:
    position, _ = _deliver(_fault("power-cut", 1.0))
    assert len(position) == 2400
    _, arrival = _deliver(_fault("gateway-reboot", 1.0, 20, 22))
    inside = (AT_US >= 20 * MINUTE_US) & (AT_US < 22 * MINUTE_US)
    assert set(arrival[inside].tolist()) == {22 * MINUTE_US}


def test_replay_sends_an_older_span_again() -> None:
    position, arrival = _deliver(_fault("replay", 600.0, 20, 21))
    counts = np.bincount(position, minlength=3600)
    assert np.array_equal(np.flatnonzero(counts == 2), np.arange(600, 1200))
    copies = arrival[3600:]
    assert (np.diff(copies) >= 0).all()
    assert 20 * MINUTE_US <= copies.min() <= copies.max() <= 21 * MINUTE_US


def test_a_cut_stream_has_the_same_fate_and_faults_compose() -> None:
    faults = (_fault("loss", 0.2), _fault("duplicate", 0.2), _fault("reorder", 30.0), _fault("link-flap", 60.0))
    whole = Counter(zip(AT_US[_deliver(*faults)[0]].tolist(), _deliver(*faults)[1].tolist(), strict=True))
    parts: Counter[tuple[int, int]] = Counter()
    for part in (AT_US[:1500], AT_US[1500:1501], AT_US[1501:]):
        position, arrival = transport.deliver(1, "mh-0001", part, faults)
        parts.update(zip(part[position].tolist(), arrival.tolist(), strict=True))
    assert parts == whole


def test_file_is_in_order_of_arrival_and_says_when_that_was(tmp_path: Path) -> None:
    faults = (_fault("loss", 0.2), _fault("duplicate", 0.3), _fault("delay", 600.0, 30, 50, "gw-02"))
    simulation = Simulation(CITY, faults, dict.fromkeys(KINDS, 5000))
    calm = Simulation(CITY, (), dict.fromkeys(KINDS, 5000))
    path, plain = tmp_path / "faulty.jsonl", tmp_path / "calm.jsonl"
    counts = export.write(simulation, 0, 3600_000_000, path, lambda *_: None)
    export.write(calm, 0, 3600_000_000, plain, lambda *_: None)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    sent = {(row["device"], row["time_us"]): row["values"] for row in map(json.loads, plain.read_text().splitlines())}
    assert len(rows) == counts[0]
    arrivals = [row.get("arrived_us", row["time_us"]) for row in rows]
    assert arrivals == sorted(arrivals)
    for row in rows:  # whatever happens on the way, what arrives is what was sent
        assert sent[row["device"], row["time_us"]] == row["values"]
        late = row.get("arrived_us", row["time_us"]) - row["time_us"]
        assert (late > 0) == ("arrived_us" in row)
    seen = Counter((row["device"], row["time_us"]) for row in rows)
    assert max(seen.values()) == 2
    assert len(seen) < len(sent)


def test_steps_of_the_export_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = (_fault("reorder", 300.0), _fault("replay", 900.0, 25, 30))
    simulation = Simulation(CITY, faults, dict.fromkeys(KINDS, 5000))
    paths = [tmp_path / name for name in ("large", "small")]
    for path, rows in zip(paths, (100_000, 50), strict=True):
        monkeypatch.setattr(export, "_ROWS_A_STEP", rows)
        export.write(simulation, 0, 3600_000_000, path, lambda *_: None)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_columns_hold_the_same_readings_and_have_no_transport(tmp_path: Path) -> None:
    simulation = Simulation(CITY, (), dict.fromkeys(KINDS, 60_000))
    path, again = tmp_path / "a.npz", tmp_path / "b.npz"
    messages, readings = export.write(simulation, 0, 7200_000_000, path, lambda *_: None)
    export.write(simulation, 0, 7200_000_000, again, lambda *_: None)
    assert path.read_bytes() == again.read_bytes()
    with np.load(path) as archive:
        assert sum(archive[f"{device.name}/time_us"].size for device in CITY.devices) == messages
        for device in CITY.devices:
            found = simulation.span(device, 0, 7200_000_000)
            assert np.array_equal(archive[f"{device.name}/time_us"], found.stamp_us)
            for metric, row in zip(device.metrics, found.values, strict=True):
                assert np.array_equal(archive[f"{device.name}/{metric.name}"], row)
                readings -= row.size
    assert readings == 0
    faulty = Simulation(CITY, (_fault("loss", 0.2),), dict.fromkeys(KINDS, 60_000))
    with pytest.raises(ConfigError, match="columns have no transport"):
        export.write(faulty, 0, 60_000_000, path, lambda *_: None)
