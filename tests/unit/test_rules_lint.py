"""``citynet rules check`` beyond the form: vocabulary, overlaps, guidance, dates."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from citynet_rules.cli import app
from citynet_rules.lint import METRICS, lint
from citynet_rules.spec import library_paths, load_rules
from citynet_sim.kinds import KINDS

RUN = CliRunner().invoke
TODAY = date(2026, 6, 1)
RULE = """[[rule]]
id = "{id}"
version = 1
kind = "limit"
title_zh = "甲"
title_en = "A"
domain = "gas"
metric = "{metric}"
devices = {devices}
unit = "{unit}"
standard = "s"
edition = "1"
status = "D"
direction = "high"
levels = {levels}
guidance_zh = "含义"
guidance_en = "Meaning"
{more}
"""


def text(ident: str, **fields: str) -> str:
    facts = {"metric": "ch4_lel", "devices": '["*"]', "unit": "%LEL", "levels": "{ red = 50.0 }", "more": ""}
    return RULE.format(id=ident, **(facts | fields))


def findings(folder: Path, *rules: str) -> list[str]:
    path = folder / "r.toml"
    path.write_text("".join(rules), encoding="utf-8")
    return [str(each).replace(f"{folder}/", "") for each in lint(load_rules([path]), TODAY)]


def test_the_library_has_no_findings() -> None:
    assert lint(load_rules(library_paths()), TODAY) == []


def test_the_simulator_speaks_the_vocabulary() -> None:
    for kind in KINDS.values():
        for metric in kind.metrics:
            known = METRICS[metric.name]
            assert metric.unit == known.unit
            assert known.low <= metric.low < metric.high <= known.high


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"unit": "%"}, []),
        ({"unit": "ppm"}, ["r.toml:2: a.unit: ppm is not the unit of ch4_lel, %"]),
        ({"metric": "ch4_lell"}, ["r.toml:2: warning: a.metric: ch4_lell is not in the vocabulary (metrics.toml)"]),
        (
            {"levels": "{ red = 500.0 }"},
            ["r.toml:2: warning: a.levels.red: 500 lies outside the scale of ch4_lel, -2 to 100 %"],
        ),
        ({"more": "valid_to = 2026-05-31"}, ["r.toml:2: warning: a.valid_to: the rule was valid to 2026-05-31"]),
        ({"more": "valid_to = 2026-06-01"}, []),
        (
            {"more": "valid_from = 2027-01-01"},
            ["r.toml:2: warning: a.valid_from: the rule is valid from 2027-01-01 on"],
        ),
    ],
)
def test_one_rule(tmp_path: Path, fields: dict[str, str], expected: list[str]) -> None:
    assert findings(tmp_path, text("a", **fields)) == expected


DERIVED = """
[[derived]]
name = "both"
unit = "%"
expression = "a + b"
operands.a = {{ metric = "{metric}", unit = "{unit}", max_age_s = 60 }}
operands.b = {{ metric = "o2_vol", unit = "%", max_age_s = 60 }}
"""
WITNESS = """
[[rule]]
id = "w"
version = 1
kind = "witness"
title_zh = "甲"
title_en = "A"
domain = "device"
metric = "ch4_lel"
unit = "%LEL"
standard = "s"
edition = "1"
status = "D"
level = "blue"
band = 8.0
hold_s = 30
beside = [{ metric = "o2_voll", gain = -0.01, band = 0.1 }]
guidance_zh = "含义"
guidance_en = "Meaning"
"""
VOTE = """
[[rule]]
id = "v"
version = 1
kind = "vote"
title_zh = "甲"
title_en = "A"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
standard = "s"
edition = "1"
status = "D"
direction = "high"
threshold = 20.0
within_s = 60
levels = { red = 2 }
objects = { o = ["a", "b", "c/ch5_lel"] }
guidance_zh = "含义"
guidance_en = "Meaning"
"""
WHEN = '[[rule.when]]\nmetric = "pump_runs"\nequal = 1\nmax_age_s = 60\n[[rule.when]]\nmaintenance = false\n'


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (DERIVED.format(metric="ch4_lel", unit="%"), None),
        (
            DERIVED.format(metric="ch5_lel", unit="%"),
            "warning: both.operands.a.metric: ch5_lel is not in the vocabulary",
        ),
        (DERIVED.format(metric="ch4_lel", unit="[ppb]"), "both.operands.a.unit: [ppb] is not the unit of ch4_lel, %"),
        (WITNESS, "warning: w.beside.0: o2_voll is not in the vocabulary"),
        (VOTE, "warning: v.objects.o: ch5_lel is not in the vocabulary"),
        (text("a", more=WHEN), "warning: a.when.0: pump_runs is not in the vocabulary"),
    ],
)
def test_metrics_that_are_not_the_watched_one(tmp_path: Path, written: str, expected: str | None) -> None:
    found = findings(tmp_path, written)
    assert [line.removesuffix(" (metrics.toml)").partition(": ")[2] for line in found] == (
        [expected] if expected else []
    )
    assert all(re.match(r"r\.toml:[123]: ", line) for line in found)


def test_a_wrong_unit_is_not_armed(tmp_path: Path) -> None:
    """It is told together with what another rule of the file has wrong in its form."""
    path = tmp_path / "r.toml"
    path.write_text(text("a", unit="kPa") + text("b", levels="{ mauve = 1.0 }"), encoding="utf-8")
    done = RUN(app, ["arm", str(path), "--author", "li", "--reason", "trial"])
    assert done.exit_code == 1
    assert "a.unit: kPa is not the unit of ch4_lel, %" in done.stderr
    assert "b.levels" in done.stderr


def test_missing_guidance(tmp_path: Path) -> None:
    found = findings(tmp_path, text("a").replace('guidance_zh = "含义"\n', ""))
    assert found == ["r.toml:2: warning: a.guidance_zh: is missing: nobody is told what to do"]


@pytest.mark.parametrize(
    ("devices", "levels", "crosses"),
    [
        ('["*"]', "{ red = 60.0 }", True),  # one colour, two thresholds
        ('["gas-*"]', "{ orange = 55.0 }", True),  # the milder colour comes later
        ('["gas-*"]', "{ orange = 20.0 }", False),
        ('["*"]', "{ red = 50.0 }", False),  # the same twice contradicts nothing
    ],
)
def test_overlaps(tmp_path: Path, devices: str, levels: str, crosses: bool) -> None:
    found = findings(tmp_path, text("a"), text("b", devices=devices, levels=levels))
    assert len(found) == crosses
    assert all("cross on the same devices: a at" in each and each.startswith("r.toml:20: ") for each in found)


def test_other_devices_do_not_overlap(tmp_path: Path) -> None:
    one, other = text("a", devices='["x-*"]'), text("b", devices='["y-*"]', levels="{ red = 60.0 }")
    assert findings(tmp_path, one, other) == []


def test_exit_codes(tmp_path: Path) -> None:
    """A warning passes unless --strict; an error never does."""
    path = tmp_path / "r.toml"
    path.write_text(text("a", metric="new_metric"), encoding="utf-8")
    warned = RUN(app, ["check", str(path)])
    assert (warned.exit_code, warned.stdout) == (0, "1 rules in 1 files, 1 warnings\n")
    assert "warning: a.metric" in warned.stderr
    assert RUN(app, ["check", "--strict", str(path)]).exit_code == 1
    path.write_text(text("a", unit="ppm"), encoding="utf-8")
    answer = RUN(app, ["check", "--json", str(path)])
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["problems"] == [f"{path}:2: a.unit: ppm is not the unit of ch4_lel, %"]


@pytest.mark.parametrize(("delay_s", "crosses"), [(0, False), (90, True)])
def test_more_at_once_does_not_contradict_less_for_longer(tmp_path: Path, delay_s: int, crosses: bool) -> None:
    rules = (text("a", more="on_delay_s = 60"), text("b", levels="{ red = 60.0 }", more=f"on_delay_s = {delay_s}"))
    assert any("cross on the same devices" in line for line in findings(tmp_path, *rules)) == crosses


def test_a_validity_that_ends_before_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text("a", more="valid_from = 2026-05-01\nvalid_to = 2026-04-30"), encoding="utf-8")
    result = RUN(app, ["check", str(path)])
    assert "a.valid_to: 2026-04-30 is before valid_from 2026-05-01" in result.stderr


def test_mistakes_of_form_and_of_meaning_come_together(tmp_path: Path) -> None:
    """A key that is misspelt in one rule hides neither the wrong unit nor the crossing levels of others."""
    path = tmp_path / "r.toml"
    rules = (text("a", more="delay = 3"), text("b", unit="ppm"), text("c"), text("d", levels="{ red = 60.0 }"))
    path.write_text("".join(rules), encoding="utf-8")
    result = RUN(app, ["check", str(path)])
    found = [line.replace(f"{path}:", "").partition(": ")[2] for line in result.stderr.splitlines()]
    assert result.exit_code == 1
    assert found[0] == "a.delay: unknown key"
    assert "b.unit: ppm is not the unit of ch4_lel, %" in found
    assert sum("cross on the same devices" in line for line in found) >= 1


MANY = """[[derived]]
name = "sum"
unit = "m"
operands = { a = { metric = "level_m", unit = "cm" } }
expression = "a + * a"

[[rule]]
id = "drain"
version = 1
kind = "accumulate"
metric = "rain_mm_h"
unit = "mm"
per = "min"
operands = 3

[[rule]]
id = "of-sum"
kind = "limit"
metric = "sum"
unit = "kPa"
guidance_zh = "含义"
guidance_en = "Meaning"

[[rule]]
id = "odd"
metric = "???"
unit = 3
operands = { a = 3, b = { metric = "gas_flow", unit = "m" } }
"""


def test_of_a_rule_with_mistakes_of_form_the_others_are_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "many.toml"
    path.write_text(MANY, encoding="utf-8")
    answer = json.loads(RUN(app, ["check", "--json", str(path)]).stdout)
    told = [line.removeprefix(f"{path}:") for line in answer["problems"]]
    assert "5: sum.expression: column 5: a value was expected, not '*'" in told
    assert "4: sum.operands.a.max_age_s: is missing" in told
    assert [line for line in told if "is not the unit of" in line] == [
        "4: sum.operands.a.unit: cm is not the unit of level_m, m",
        "12: drain.unit: mm/min is not the unit of rain_mm_h, mm/h",
    ]
    warned = [line.removeprefix(f"{path}:").removeprefix(" ") for line in answer["warnings"]]
    assert [line for line in warned if "vocabulary" in line] == [
        "28: warning: odd.operands.b.metric: gas_flow is not in the vocabulary (metrics.toml)"
    ]
    assert [line.split(" ")[2] for line in warned if "guidance" in line] == [
        "drain.guidance_zh:", "drain.guidance_en:", "odd.guidance_zh:", "odd.guidance_en:",
    ]  # fmt: skip
