"""`citynet rules score`: what it reads and writes, and what it says of files it cannot use."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from citynet_rules.cli import app

runner = CliRunner()


def run(*words: object) -> tuple[int, str, str]:
    result = runner.invoke(app, ["score", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def series_file(path: Path, rows: int = 400) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [f"2026-01-{1 + i // 288:02d} {i % 288 // 12:02d}:{i % 12 * 5:02d}:00" for i in range(rows)]
    times[4] = times[3]
    values = [f"{np.sin(i / 20):.4f}" for i in range(rows)]
    if rows > 350:
        values[20], values[350] = "", "99"
    path.write_text("timestamp,value\n" + "".join(f"{t},{v}\n" for t, v in zip(times, values, strict=True)))
    return times


def test_a_corpus_is_scored_row_by_row_at_the_same_paths(tmp_path: Path) -> None:
    times = series_file(tmp_path / "data" / "water" / "a.csv")
    series_file(tmp_path / "data" / "b.csv", 5)
    code, stdout, stderr = run("--corpus", tmp_path, "--out", tmp_path / "out", "--json")
    assert code == 0
    summary = json.loads(stdout)
    assert (summary["series"], summary["rows"]) == (2, 405)
    assert "2/2 water/a.csv: 400 rows" in stderr
    with (tmp_path / "out" / "water" / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["timestamp"] for row in rows] == times
    severity = [float(row["severity"]) for row in rows]
    assert severity[20] == 0.0
    assert severity[350] >= 0.5
    assert max(severity[:350]) < 0.5
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a.csv:1: empty"),
        ("timestamp,level\n", "a.csv:1: no column 'value'; the header has timestamp, level"),
        ("timestamp,value\n2026-01-01,1\n2026-01-01,x1\n", "a.csv:3: column 'value': 'x1' is no number"),
        ("timestamp,value\nyesterday,1\n", "a.csv:2: column 'timestamp': 'yesterday' is no time"),
        ("timestamp,value\n\n2026-01-01\n", "a.csv:3: 1 cells, the header has 2"),
    ],
)
def test_a_bad_series_is_one_line_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text(text)
    code, _, stderr = run("--corpus", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert complaint in stderr
    assert stderr.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.csv*"))


def test_a_corpus_without_series_and_an_output_among_them_are_refused(tmp_path: Path) -> None:
    code, _, stderr = run("--corpus", tmp_path, "--out", tmp_path / "out")
    assert (code, "no CSV files below this folder" in stderr) == (1, True)
    series_file(tmp_path / "data" / "a.csv")
    code, _, stderr = run("--corpus", tmp_path, "--out", tmp_path / "data")
    assert (code, "would write among the series" in stderr) == (1, True)


def table_file(path: Path, rows: int = 600, delimiter: str = ",") -> None:
    rng = np.random.default_rng(3)
    flow = 100 + 10 * np.sin(np.arange(rows) / 15) + rng.normal(size=rows)
    other = 2 * flow + rng.normal(size=rows)
    other[500:550] += 60
    lines = [delimiter.join(("time", "flow", "pressure", "valve", "note"))]
    for i in range(rows):
        cells = (f"t{i}", f"{flow[i]:.3f}" if i % 7 else "", f"{other[i]:.3f}", "1", "-")
        lines.append(delimiter.join(cells))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_table_is_judged_after_its_warm_up(tmp_path: Path, delimiter: str) -> None:
    table_file(tmp_path / "t.csv", delimiter=delimiter)
    words = ("--table", tmp_path / "t.csv", "--warmup", 300, "--skip", "note")
    code, stdout, _ = run(*words, "--out", tmp_path / "o.csv", "--json")
    assert code == 0
    summary = json.loads(stdout)
    assert (summary["rows"], summary["sensors"], summary["ignored"]) == (
        300,
        2,
        {"valve": "constant during the warm-up"},
    )
    with (tmp_path / "o.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["time"] for row in rows] == [f"t{i}" for i in range(300, 600)]
    alarm = [row["alarm"] == "1" for row in rows]
    assert alarm == [float(row["severity"]) >= 0.5 for row in rows]
    assert all(alarm[200:250])
    assert sum(alarm[:200]) < 5
    assert summary["alarm_rows"] == sum(alarm)
    assert run(*words)[1] == (tmp_path / "o.csv").read_text()


def test_rows_after_the_warm_up_teach_nothing(tmp_path: Path) -> None:
    table_file(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "u.csv").write_text("\n".join([*lines[:451], *(f"t{i},5,-9,1,-" for i in range(90))]) + "\n")
    first, second = (run("--table", tmp_path / f, "--warmup", 300, "--skip", "note")[1] for f in ("t.csv", "u.csv"))
    assert first.splitlines()[:151] == second.splitlines()[:151]
    assert first.splitlines()[151:] != second.splitlines()[151:]


def test_bad_tables_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table_file(path)
    for words, complaint in [
        (("--warmup", 300), "t.csv:2: column 'note': '-' is no number"),
        (("--warmup", 601, "--skip", "note"), "t.csv:601: the table ends after 600 rows, the warm-up takes 601"),
        (("--warmup", 600, "--skip", "note"), "t.csv:601: the warm-up takes all 600 rows"),
        (("--warmup", 300, "--skip", "nosuch"), "t.csv:1: no column 'nosuch' to skip"),
    ]:
        code, _, stderr = run("--table", path, *words, "--out", tmp_path / "o.csv")
        assert code == 1
        assert complaint in stderr
        assert stderr.count("\n") == 1
        assert not (tmp_path / "o.csv").exists()
    path.write_text("time\n1\n")
    assert "no sensor column" in run("--table", path, "--warmup", 50)[2]
    path.write_text("1,2,3\n" * 99)
    assert "the first line must name the columns" in run("--table", path, "--warmup", 50)[2]
    path.write_text("time,a\n" + "1,2\n" * 99)
    assert "no column varies during the warm-up" in run("--table", path, "--warmup", 50)[2]
    assert "No such file" in run("--table", tmp_path / "none.csv", "--warmup", 50)[2]


def test_options_that_do_not_fit_are_a_usage_error(tmp_path: Path) -> None:
    for words in [
        (), ("--corpus", tmp_path), ("--table", "t.csv"), ("--table", "t.csv", "--warmup", 49),
        ("--table", "t.csv", "--warmup", 50, "--json"), ("--corpus", tmp_path, "--table", "t.csv"),
        ("--corpus", tmp_path, "--out", tmp_path, "--warmup", 50),
    ]:  # fmt: skip
        assert run(*words)[0] == 2
