"""The command: what it lists, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from citynet_sim.cli import app
from citynet_sim.truth import read_truth

SMALL = """
[sim]
texture = false
[sim.city]
population = 0
devices = { gas-well = 6, water-meter = 4, manhole = 5, pump-station = 2 }
"""

LAYERS = """
about = "one of each layer"
duration_s = 600
[[weather]]
kind = "rain"
at_s = 60
hold_s = 60
[[fault]]
kind = "clock-skew"
at_s = 60
hold_s = 60
device_kind = "gas-well"
[[fault]]
kind = "loss"
at_s = 60
hold_s = 60
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "citynet.toml"
    path.write_text(SMALL)
    return path


def _sim(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_same_seed_same_bytes(config: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(files, (5, 5, 6), strict=True):
        assert _sim("run", "-c", config, "--seed", seed, "--duration", 60, "--out", path).exit_code == 0
    one, same, other = (path.read_bytes() for path in files)
    assert one == same != other
    lines = [json.loads(line) for line in one.splitlines()]
    assert len(lines) == 17 * 12
    assert [row["time_us"] for row in lines] == sorted(row["time_us"] for row in lines)
    assert 1_767_225_600_000_000 <= lines[0]["time_us"] < lines[-1]["time_us"] < 1_767_225_660_000_000
    assert list(tmp_path.glob("*.part")) == []


def test_file_has_the_incidents_and_truth_tells_them(config: Path, tmp_path: Path) -> None:
    out, truth_path = tmp_path / "out", tmp_path / "truth"
    args = ("--start", "2026-03-01T08:00:00+08:00", "--duration", 3800, "--out", out, "--truth", truth_path)
    assert _sim("run", "gas-leak", "-c", config, *args).exit_code == 0
    truth = read_truth(truth_path)
    (leak,) = truth.incidents
    assert [fault["id"] for fault in truth.header["faults"]] == ["biogas-1", "gas-leak-1"]
    assert (leak["expected_rule"], leak["expected_level"]) == ("gas-ch4-void", "red")
    assert leak["start_us"] == truth.header["started_at_us"] + 3_600_000_000 == 1_772_326_800_000_000
    high = set()
    for row in map(json.loads, out.read_text().splitlines()):
        if row["values"].get("ch4_lel", 0.0) > 50.0:
            high.add(row["device"])
            assert row["time_us"] > leak["start_us"]
    assert high == set(leak["devices"])


def test_list_and_describe(config: Path) -> None:
    names = [row["name"] for row in json.loads(_sim("list", "--json").stdout)]
    assert names[0] == "demo"
    assert {"gas-leak", "main-burst", "storm-pump-failure", "tunnel-fire", "calm-week"} <= set(names)
    facts = json.loads(_sim("describe", "-c", config, "--seed", 9, "--json").stdout)
    assert (facts["seed"], facts["devices"], facts["series"]) == (9, 17, 6 * 5 + 4 * 5 + 5 * 4 + 2 * 3)
    assert sum(facts["gateways"].values()) == 17
    assert [incident["start_us"] for incident in facts["incidents"]] == [5_000_000, 5_000_000]
    words = _sim("describe", "-c", config, "--seed", 9).stdout
    assert "gas-leak-1 at gas-" in words
    assert "gas-ch4-void red" in words


def test_devices_are_registration_documents(config: Path) -> None:
    rows = [
        json.loads(line) for line in _sim("devices", "-c", config, "--gateways", "x, y", "--json").stdout.splitlines()
    ]
    assert len(rows) == 17
    assert {row["gateway"] for row in rows} == {"x", "y"}
    assert set(rows[0]) == {"device", "kind", "gateway", "district", "lon", "lat", "series"}
    assert rows[0]["series"][0] == {"metric": "ch4_lel", "unit": "%", "low": 0.0, "high": 100.0, "interval_s": 5.0}
    assert len(_sim("devices", "-c", config).stdout.splitlines()) == 17


def test_truth_tells_what_will_happen_and_the_run_writes_the_same(config: Path, tmp_path: Path) -> None:
    told = [json.loads(line) for line in _sim("truth", "gas-leak", "-c", config, "--json").stdout.splitlines()]
    out, truth_path = tmp_path / "out", tmp_path / "truth"
    _sim("run", "gas-leak", "-c", config, "--duration", 60, "--out", out, "--truth", truth_path)
    header = read_truth(truth_path).header
    assert header["faults"] == told
    assert header["incidents"] == [fault for fault in told if fault["expected_rule"]]
    assert {edge["network"] for edge in header["topology"]} == {"sewer", "gas", "water"}
    words = _sim("truth", "gas-leak", "-c", config).stdout.splitlines()
    assert len(words) == 2
    assert "gas-leak-1" in words[1]


def test_faults_and_check(config: Path, tmp_path: Path) -> None:
    kinds = json.loads(_sim("faults", "--json").stdout)
    assert {kind["layer"] for kind in kinds} == {"event", "sensor", "transport"}
    assert len(_sim("faults").stdout.splitlines()) == len(kinds)
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('about = "x"\n[[fault]]\nkind = "burst"\nat_s = 3\n')
    bad.write_text('about = "x"\n[[fault]]\nkind = "bust"\nat_s = -3\n')
    assert _sim("check", good, "demo", "-c", config).exit_code == 0
    result = _sim("check", good, bad, "-c", config)
    assert result.exit_code == 1
    assert [line.removeprefix("error: ").split(": ")[:2] for line in result.stderr.splitlines()] == [
        [str(bad), "fault[0].kind"],
        [str(bad), "fault[0].at_s"],
    ]


def test_map_is_geojson_whose_sewers_run_downhill(config: Path) -> None:
    city = json.loads(_sim("map", "-c", config).stdout)
    assert city["type"] == "FeatureCollection"
    by_what: dict[str, list[dict[str, Any]]] = {}
    for feature in city["features"]:
        by_what.setdefault(feature["properties"]["what"], []).append(feature)
    assert set(by_what) == {"district", "river", "utility-tunnel", "street", "pipe", "device"}
    assert len(by_what["device"]) == 17
    sewers = {
        p["properties"]["from"]: p["properties"]["to"] for p in by_what["pipe"] if p["properties"]["network"] == "sewer"
    }
    assert len(sewers) == 5
    for start in sewers:  # every way ends at the river
        seen, here = set(), start
        while here != "outfall":
            assert here not in seen
            seen.add(here)
            here = sewers[here]
    gas = [p for p in by_what["pipe"] if p["properties"]["network"] == "gas"]
    assert len(gas) == 6 - 1


def test_plots_are_made(config: Path, tmp_path: Path) -> None:
    """A fault of every layer, and a day; of a city that is read from a file as well."""
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    config.write_text(SMALL.replace("manhole = 5", "rain-gauge = 1"))
    path, assets = tmp_path / "all.toml", tmp_path / "assets.geojson"
    path.write_text(LAYERS)
    made = _sim("plot", path, "-c", config, "--out", tmp_path / "layers").stdout.splitlines()
    assert [Path(line).name for line in made] == ["all-rain-1.png", "all-clock-skew-1.png", "all-loss-1.png"]
    config.write_text("[sim.city]\npopulation = 0\n")
    bridge = {"type": "Point", "coordinates": [117.0, 31.0]}
    feature = {"type": "Feature", "geometry": bridge, "properties": {"kind": "bridge", "id": "br-north"}}
    assets.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    args = ("--days", "--duration", 600, "--geojson", assets, "-c", config, "--out", tmp_path / "days")
    days = _sim("plot", *args).stdout.splitlines()
    assert [Path(line).name for line in days] == ["day-bridge.png"]
    assert all(Path(line).read_bytes().startswith(b"\x89PNG") for line in [*made, *days])


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("run", "storm"), "scenario 'storm': unknown"),
        (("run", "--speed", 10), "--speed above 1 needs --duration or --start"),
        (("run", "--start", "2026-01-01T00:00:00Z"), "--start: at real-time speed"),
        (("run", "--out", "x", "--start", "soon"), "not a date and time"),
        (("run", "--out", "x", "--start", "2026-01-01T00:00:00"), "needs a time zone"),
        (("run", "--out", "x", "--start", "1969-01-01T00:00:00Z"), "before 1970"),
        (("run", "--out", "/nowhere/x", "--duration", 1), "/nowhere/x: No such file or directory"),
        (("run", "--gateways", "a b"), "gateways: 'a b' is not an identifier"),
        (("run", "--gateways", ","), "--gateways"),
        (("run", "--broker-port", 70_000), "--broker"),
        (("run", "--seed", -1), "--seed"),
    ],
)
def test_mistakes_are_one_clear_line(config: Path, args: tuple[object, ...], complaint: str) -> None:
    result = _sim(*args, "-c", config)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_file_settings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "citynet.toml"
    path.write_text('[sim]\nspeed = 0\nwind = 3\n[sim.sampling]\nevery_s = "often"\n[sim.city.devices]\nufo = 1\n')
    result = _sim("describe", "-c", path)
    assert result.exit_code == 1
    for where in ("sim.speed", "sim.wind", "sim.sampling.every_s", "sim.city.devices"):
        assert f"{path}: {where}:" in result.stderr
