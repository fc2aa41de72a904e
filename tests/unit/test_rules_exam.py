"""The exam: what becomes of an alert, why a place was missed, and the figures; on a hand-made city and on the simulator's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from citynet.batch import SeriesBatch
from citynet_rules.cli import app
from citynet_rules.cli_exam import as_text, beside_in, sit
from citynet_rules.proof import exam
from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.exam import Paper
from citynet_rules.proof.rehearsal import Rehearsal, staged_of, stager
from citynet_rules.spec import RuleSet, load_rules
from citynet_sim import rehearsal
from citynet_sim.export import messages_of

SECOND = 1_000_000
MINUTE = 60 * SECOND
T0 = 1_767_225_600 * SECOND
RULES = """
[[rule]]
id = "high"
version = 1
kind = "limit"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
direction = "high"
levels = { orange = 20.0, red = 50.0 }
standard = "s"
edition = "1"
status = "D"
title_zh = "x"
title_en = "x"

[[rule]]
id = "rain"
version = 1
kind = "limit"
domain = "drainage"
metric = "rain_mm_h"
unit = "mm/h"
direction = "high"
levels = { yellow = 20.0 }
standard = "s"
edition = "1"
status = "D"
title_zh = "x"
title_en = "x"

[[rule]]
id = "impossible"
version = 1
kind = "range"
domain = "device"
metric = "ch4_lel"
unit = "%LEL"
level = "blue"
low = 0.0
high = 100.0
standard = "s"
edition = "1"
status = "D"
title_zh = "x"
title_en = "x"
"""
DEVICES = {
    "a": "ch4_lel",
    "b": "ch4_lel",
    "c": "ch4_lel",
    "d": "ch4_lel",
    "g": "rain_mm_h",
    "h": "rain_mm_h",
    "s": "stage_m",
}


def fault(ident: str, layer: str, devices: list[str], minutes: tuple[float, float], **more: Any) -> dict[str, Any]:
    known = {
        "id": ident, "kind": ident.rsplit("-", 1)[0], "layer": layer, "domain": "gas", "metric": "ch4_lel",
        "devices": devices, "gateways": [], "district": "", "start_us": T0 + round(minutes[0] * MINUTE),
        "end_us": T0 + round(minutes[1] * MINUTE), "decay_s": 1.0, "rain_mm_h": 0.0, "expected_level": None,
    }  # fmt: skip
    return known | more


@dataclass
class HandMade:
    """An hour of a city: `rows` are (minute, device, value), every value held until the next."""

    rows: list[tuple[int, str, float]]
    faults: list[dict[str, Any]]
    start_us: int = T0
    end_us: int = T0 + 60 * MINUTE
    header: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        devices = [
            {
                "device": name, "kind": "well", "gateway": "gw", "district": "south" if name == "h" else "north",
                "series": [{"metric": metric}],
            }
            for name, metric in DEVICES.items()
        ]  # fmt: skip
        self.header = {"gateways": ["gw"], "devices": devices, "faults": self.faults}

    def blocks(self, from_us: int, to_us: int) -> Iterator[tuple[SeriesBatch, int]]:
        number = {name: n for n, name in enumerate(DEVICES, start=1)}
        for minute in range(60):
            now = {device: value for at, device, value in sorted(self.rows) if at <= minute}
            series = np.array([number[name] for name in now], np.int32)
            times = np.full(len(now), from_us + minute * MINUTE, np.int64)
            values = np.array(list(now.values()), np.float64)
            yield (
                SeriesBatch.group(series, times, values, np.zeros(len(now), np.uint8)),
                from_us + (minute + 1) * MINUTE,
            )


@dataclass
class City:
    """A simulator of one hand-made run."""

    run: HandMade

    def names(self) -> list[str]:
        return ["hour"]

    def rule_files(self) -> list[Path]:
        return []

    def stage(self, name: str, *, seed: int, duration_s: float | None, population: int, every_s: float) -> Rehearsal:
        return self.run


@pytest.fixture
def rules(tmp_path: Path) -> RuleSet:
    (tmp_path / "r.toml").write_text(RULES, encoding="utf-8")
    return load_rules([tmp_path / "r.toml"])


def marked(rules: RuleSet, rows: list[tuple[int, str, float]], faults: list[dict[str, Any]]) -> Paper:
    return sit(City(HandMade(rows, faults)), rules, "hour", 1, duration=None, population=1, every_s=60, warmup_h=0)


LEAK = fault("leak-1", "event", ["a", "b"], (10, 40), expected_level="red")


def test_alerts_are_true_explained_of_a_device_or_false(rules: RuleSet) -> None:
    storm = fault("rain-1", "event", [], (5, 30), rain_mm_h=30.0, district="north", domain="weather")
    drift = fault("drift-1", "sensor", ["c"], (5, 30), domain="device", expected_level="blue")
    rows = [(0, name, 0.0) for name in DEVICES]
    rows += [(12, "a", 80.0), (12, "c", 30.0), (12, "d", 30.0), (12, "g", 40.0), (12, "h", 40.0)]
    done = marked(rules, rows, [LEAK, storm, drift])
    found = {each.alert.object: (each.verdict, each.cause) for each in done.judged}
    assert found == {
        "a": ("true", "leak-1"), "c": ("device", "drift-1"), "d": ("false", ""), "g": ("explained", "rain-1"),
        "h": ("false", ""),
    }  # fmt: skip
    mark = exam.mark([done], operators=2)
    assert mark.total.alerts == {"true": 1, "explained": 1, "device": 1, "false": 2}
    assert mark.total.precision == pytest.approx(0.4)
    assert mark.false_per_1000_sensor_days == pytest.approx(3 * 1000 * 24 / 7)
    assert (mark.device_faults, mark.device_faults_noticed, mark.device_faults_for_people) == (1, 0, 1)
    assert mark.alerts_per_operator_hour == pytest.approx(2.5)


def test_a_device_rule_notices_and_speaks_to_nobody(rules: RuleSet) -> None:
    drift = fault("drift-1", "sensor", ["c"], (5, 30), domain="device", expected_level="blue")
    done = marked(rules, [(0, "c", 1.0), (12, "c", -5.0)], [drift])
    (each,) = done.judged
    assert (each.verdict, each.cause, each.is_for_people) == ("device-rule", "drift-1", False)
    assert done.faults == [(done.staged[0], True, False)]
    assert exam.mark([done]).false_per_1000_sensor_days == 0.0


def test_a_place_is_found_by_its_colour_and_missed_with_a_reason(rules: RuleSet) -> None:
    flood = fault("flood-1", "event", ["s"], (10, 40), metric="stage_m", expected_level="orange")
    quiet = fault("leak-2", "event", ["c"], (10, 40), expected_level="orange")
    late = fault("leak-3", "event", ["d"], (10, 20), expected_level="orange")
    rows = [(0, name, 0.0) for name in DEVICES]
    rows += [(12, "a", 80.0), (12, "b", 30.0), (12, "c", 19.5), (50, "c", 0.0), (30, "d", 60.0)]
    done = marked(rules, rows, [LEAK, flood, quiet, late])
    told = {(sight.incident.id, sight.device): (sight.delay_s, sight.is_seen, sight.why) for sight in done.sights}
    assert told == {
        ("leak-1", "a"): (120.0, True, ""),
        ("leak-1", "b"): (None, True, "too low: orange by high"),
        ("flood-1", "s"): (None, False, "no rule for stage_m; silent: none"),
        ("leak-2", "c"): (None, False, "below threshold: high 19.5 of 20 %LEL"),
        ("leak-3", "d"): (None, False, "too late: high"),
    }
    mark = exam.mark([done])
    assert (mark.incidents, mark.incidents_found) == (4, 1)
    assert (mark.total.due, mark.total.found, mark.total.seen) == (5, 1, 2)
    assert [(row.name, row.due, row.found) for row in exam.by_kind([done])][:2] == [("flood", 1, 0), ("leak", 4, 1)]
    assert "missed: hour 1 leak-2 at c: below threshold" in as_text([done], 1)


def test_what_is_open_when_a_colour_begins_counts(rules: RuleSet) -> None:
    """Water rises through the colours: the alert of the first one is there when the staged one is reached."""
    storm = fault("rain-1", "event", [], (5, 30), rain_mm_h=30.0, domain="weather")
    wet = fault("wet-1", "event", ["g"], (20, 40), metric="rain_mm_h", expected_level="yellow", domain="drainage")
    done = marked(rules, [(0, "g", 0.0), (8, "g", 40.0)], [storm, wet])
    assert [(each.verdict, each.cause) for each in done.judged] == [("explained", "rain-1")]
    assert [sight.delay_s for sight in done.sights] == [0.0]


def test_the_alert_of_another_incident_finds_nothing(rules: RuleSet) -> None:
    """What is in force at a device because of something else says nothing of what begins there now."""
    second = fault("leak-2", "event", ["a"], (20, 40), expected_level="orange")
    done = marked(rules, [(0, "a", 0.0), (12, "a", 80.0)], [LEAK, second])
    assert [(sight.incident.id, sight.delay_s) for sight in done.sights if sight.device == "a"] == [
        ("leak-1", 120.0),
        ("leak-2", None),
    ]


def test_origins_are_counted_by_what_was_staged(rules: RuleSet) -> None:
    """Where a leak and biogas are in one well during an alert, leak is right; what asks for no origin does not count."""
    header = {"faults": [
        fault("leak-1", "event", ["a", "b"], (10, 20), kind="gas-leak", expected_level="red"),
        fault("biogas-1", "event", ["b", "c"], (0, 60), kind="biogas", expected_level="orange"),
    ]}  # fmt: skip
    paper = marked(rules, [], [])
    any_rule = next(iter(rules))

    def judged(device: str, begin: int, end: int | None, origin: str, *, people: bool = True) -> exam.Judged:
        cleared = None if end is None else T0 + end * MINUTE
        alert = Alert("r", "1", device, 3, T0 + begin * MINUTE, cleared, "event", people, origin)
        return exam.Judged(alert, any_rule, people, exam.TRUE, "")

    found = [
        judged("a", 11, 15, "leak"), judged("a", 12, 13, "unknown"), judged("b", 1, None, "leak"), judged("b", 1, 5, "biogas"),
        judged("b", 12, 14, "biogas"), judged("c", 11, 30, "leak"), judged("c", 11, 30, "biogas", people=False),
        judged("c", 11, 30, ""), judged("d", 11, 30, "leak"),
    ]  # fmt: skip
    counted = exam.by_origin([replace(paper, staged=staged_of(header), judged=found)])
    assert dict(counted) == {
        "leak": {"leak": 2, "biogas": 1, "unknown": 1}, "biogas": {"leak": 1, "biogas": 1, "unknown": 0},
    }  # fmt: skip
    assert exam.by_origin([paper]) == []


def test_a_rehearsal_reads_as_the_file_does() -> None:
    """The same readings in the same order of arrival as `citynet sim run --out`, transport faults included."""
    staged = rehearsal.stage("replayed-readings", seed=4, duration_s=10_800.0, population=100_000)
    series = {}
    for item in staged.header["devices"]:
        for entry in item["series"]:
            series[item["device"], entry["metric"]] = len(series) + 1
    devices = staged.simulation.city.devices
    written: dict[int, list[tuple[int, float]]] = {number: [] for number in series.values()}
    for _, rows in messages_of(staged.simulation, staged.start_us, staged.end_us):
        for arrival, index, stamp, values in rows:
            for metric, value in zip(devices[index].metrics, values, strict=True):
                if arrival < staged.end_us:
                    written[series[devices[index].name, metric.name]].append((stamp, value))
    read: dict[int, list[tuple[int, float]]] = {number: [] for number in series.values()}
    ends = []
    for batch, until_us in staged.blocks(staged.start_us, staged.end_us):
        ends.append(until_us)
        for number, stamp, value, _ in batch.rows():
            read[number].append((stamp, value))
    assert read == written
    assert ends == list(range(staged.start_us + 300 * SECOND, staged.end_us + 1, 300 * SECOND))
    assert any(sorted(times) != times for times in ([stamp for stamp, _ in rows] for rows in read.values()))


def test_one_command_composes_it() -> None:
    words = ["exam", "--scenario", "demo", "--duration", "400", "--warmup-h", "0", "--population", "100000"]
    result = CliRunner().invoke(app, [*words, "--seed", "7", "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["all"]["incidents"], answer["all"]["incident_recall"], answer["all"]["false"]) == (2, 1.0, 0)
    assert {row["name"] for row in answer["rules"]} >= {"gas-ch4-void", "drainage-ponding"}
    assert "demo, seed 7: 100 %" in result.stderr
    text = CliRunner().invoke(app, [*words, "--seed", "7"]).stdout
    assert "every place was found" in text
    assert "floor 0.95" in text


def test_usage(tmp_path: Path) -> None:
    for words in ([], ["--all", "--scenario", "demo"], ["--scenario", "demo", "--duration", "1"]):
        assert CliRunner().invoke(app, ["exam", *words]).exit_code == 2
    unknown = CliRunner().invoke(app, ["exam", "--scenario", "no-such"])
    assert (unknown.exit_code, "scenario 'no-such': unknown" in unknown.stderr) == (1, True)
    assert stager().names() == rehearsal.names()


def test_the_city_has_the_neighbours_that_its_positions_tell(tmp_path: Path) -> None:
    """As `citynet rules neighbours` tells a real one; a table that a file gives stays as it is."""
    (tmp_path / "w.toml").write_text(WITNESS, encoding="utf-8")
    rules = load_rules([tmp_path / "w.toml"])
    devices = [
        {"device": name, "lon": lon, "lat": 0.0, "series": [{"metric": "ch4_lel"}]}
        for name, lon in (("a", 0.0), ("b", 0.001), ("far", 1.0))
    ]
    assert beside_in(rules, {"devices": devices}).neighbours == {"ch4_lel": {"a": ("b",), "b": ("a",)}}
    given = replace(rules, neighbours={"ch4_lel": {"a": ("far",)}})
    assert beside_in(given, {"devices": devices}) == given


WITNESS = """
[[rule]]
id = "w"
version = 1
kind = "witness"
domain = "device"
metric = "ch4_lel"
unit = "%LEL"
level = "blue"
band = 8.0
neighbours = { band = 5.0 }
hold_s = 30
standard = "s"
edition = "1"
status = "D"
title_zh = "x"
title_en = "x"
"""
