"""``citynet rules``."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from citynet_rules.cli import app
from citynet_rules.spec import library_paths, load_rules

RUN = CliRunner().invoke
LIBRARY = load_rules(library_paths())


def test_check_of_the_library() -> None:
    result = RUN(app, ["check"])
    assert (result.exit_code, result.stdout) == (0, f"{len(LIBRARY)} rules in 8 files, no problems\n")


def test_check_json_of_the_library() -> None:
    result = RUN(app, ["check", "--json"])
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["ok"], answer["rules"], answer["problems"]) == (0, True, len(LIBRARY), [])


def test_check_prints_every_problem_and_fails(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[[rule]]\nid = "x"\nkind = "limit"\ncolour = 1\n', encoding="utf-8")
    (tmp_path / "b.yaml").write_text("rule: 7\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no rule file", encoding="utf-8")
    result = RUN(app, ["check", str(tmp_path)])
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{tmp_path}/a.toml:4: x.colour: unknown key" in lines
    assert f"{tmp_path}/a.toml:1: x.levels: is missing" in lines
    assert f"{tmp_path}/b.yaml:1: rule: at least one [[rule]] was expected" in lines
    result = RUN(app, ["check", str(tmp_path), "--json"])
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["problems"] + answer["warnings"]) == (1, lines)
    assert answer["warnings"] == [
        f"{tmp_path}/a.toml:1: warning: x.guidance_{language}: is missing: nobody is told what to do"
        for language in ("zh", "en")
    ]


def test_a_folder_without_rules(tmp_path: Path) -> None:
    result = RUN(app, ["check", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {tmp_path}: no rule files (.toml, .yaml, .yml) in this folder\n",
    )


def test_show_is_a_table() -> None:
    result = RUN(app, ["show"])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert len(lines) == len(LIBRARY) + 1
    assert lines[0].split() == ["id", "version", "kind", "metric", "limits", "standard", "edition", "status"]
    (pressure,) = [line for line in lines if line.startswith("water-pressure-low ")]
    assert "yellow ≤ 0.14, orange ≤ 0.1 MPa" in pressure
    assert pressure.endswith("Q")
    assert "GB 55036 3.0.3" in pressure


def test_show_json_has_effective_values_and_origins() -> None:
    rules = {rule["id"]: rule for rule in json.loads(RUN(app, ["show", "--json"]).stdout)}
    ponding = rules["drainage-ponding"]
    assert (ponding["gap_s_max"], ponding["off_delay_s"], ponding["status"], ponding["unit"]) == (
        900.0,
        60.0,
        "D",
        "cm",
    )
    assert rules["gateway-silent"]["unit"] == "s"
    assert ponding["origin"].endswith("drainage.toml:6")


def test_show_of_a_broken_file_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[[rule]]\n", encoding="utf-8")
    result = RUN(app, ["show", str(tmp_path / "a.toml")])
    assert result.exit_code == 1
    assert f"{tmp_path}/a.toml:1: rule[0].id: is missing" in result.stderr
