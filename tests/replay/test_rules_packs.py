"""The shipped packs against their golden cases, and the tool that runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from citynet.errors import CitynetError
from citynet_rules.cli import app
from citynet_rules.golden import cases, run
from citynet_rules.spec import library_paths, load_rules

FOLDER = Path(__file__).with_name("packs")
LIBRARY = load_rules(library_paths())
CASES = cases(FOLDER)
PROFILES = FOLDER.with_name("profiles")
WEEKS = load_rules([library_paths()[0].parents[1] / "profiles" / "water-week.toml"])
HEADER = "from_s,to_s,step_s,device,value,to_value\n"
RUN = CliRunner().invoke


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_case_comes_out_as_written(case: Path) -> None:
    outcome = run(case, LIBRARY)
    assert outcome.got == outcome.expected


@pytest.mark.parametrize("case", cases(PROFILES), ids=lambda case: case.stem)
def test_the_case_of_a_profile_comes_out_as_written(case: Path) -> None:
    outcome = run(case, WEEKS)
    assert outcome.got == outcome.expected != ()


def test_every_rule_raises_clears_and_is_nearly_missed() -> None:
    """In its cases, one device at least raises and clears, and another that the rule selects stays silent. Rules of kind
    `witness` need several metrics; their cases are in tests/unit/test_rules_verdict.py."""
    metric = {rule.id: rule for rule in LIBRARY}
    changes: dict[str, set[str]] = {rule.id: set() for rule in LIBRARY if rule.kind != "witness"}
    for outcome in (run(case, LIBRARY) for case in CASES):
        rule = metric[outcome.rule]
        spoken = {line.split()[1] for line in outcome.expected}
        changes[rule.id] |= {line.split()[2] for line in outcome.expected}
        if any(rule.selects(device, rule.metric) for device in set(outcome.devices) - spoken):
            changes[rule.id].add("near miss")
    assert {ident for ident, seen in changes.items() if not seen >= {"raise", "clear", "near miss"}} == set()


def test_the_tool_shows_the_difference_and_updates(tmp_path: Path) -> None:
    (tmp_path / "gas-h2s.csv").write_text(HEADER + "0,60,10,w,12,\n70,200,10,w,1,\n", encoding="utf-8")
    expected = tmp_path / "gas-h2s.expected"
    expected.write_text("40 w raise yellow 12\n", encoding="utf-8")
    before = RUN(app, ["test", str(tmp_path)])
    assert before.exit_code == 1
    assert "-40 w raise yellow 12" in before.stdout
    assert "+30 w raise yellow 12" in before.stdout
    assert before.stdout.endswith("1 cases, 1 differ\n")
    answer = RUN(app, ["test", str(tmp_path), "--json"])
    assert (answer.exit_code, json.loads(answer.stdout)["ok"]) == (1, False)
    assert RUN(app, ["test", str(tmp_path), "--update"]).exit_code == 0
    assert expected.read_text(encoding="utf-8") == "30 w raise yellow 12\n130 w clear yellow 1\n"
    assert RUN(app, ["test", str(tmp_path)]).stdout == "1 cases, 0 differ\n"


def test_a_ramp_and_a_watermark(tmp_path: Path) -> None:
    """From 0 to 12 in steps of 1: 10 is reached at 100 s, and 30 s later it is an alert; silence is told by the mark."""
    case = tmp_path / "gas-h2s--ramp.csv"
    case.write_text(HEADER + "0,120,10,w,0,12\n130,,,w,12,\n", encoding="utf-8")
    assert run(case, LIBRARY).got == ("130 w raise yellow 12",)
    case = tmp_path / "device-stale-gas.csv"
    case.write_text(HEADER + "0,,,w,1,\n900,,,@gw-1,,\n", encoding="utf-8")
    assert run(case, LIBRARY).got == ("900 w raise yellow 900",)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0,60,0,w,1,", ":2: no readings every 0 s from 0 to 60"),
        ("60,0,5,w,1,", ":2: no readings every 5 s from 60 to 0"),
        (",60,5,w,1,", ":2: from_s is missing"),
        ("0,60,5,,1,", ":2: device is missing"),
        ("0,60,5,w,much,", ":2: column 'value': 'much' is no number"),
        ("0,1e9,1,w,1,", ":2: no readings every 1 s from 0 to 1e+09"),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, line: str, problem: str) -> None:
    case = tmp_path / "gas-h2s.csv"
    case.write_text(f"{HEADER}{line}\n", encoding="utf-8")
    with pytest.raises(CitynetError, match=problem.replace("+", r"\+")):
        run(case, LIBRARY)


def test_a_case_without_a_rule_and_a_folder_without_cases(tmp_path: Path) -> None:
    with pytest.raises(CitynetError, match="no cases"):
        cases(tmp_path)
    (tmp_path / "nothing.csv").write_text(HEADER, encoding="utf-8")
    assert RUN(app, ["test", str(tmp_path)]).stderr == f"error: {tmp_path}/nothing.csv: there is no rule nothing\n"
