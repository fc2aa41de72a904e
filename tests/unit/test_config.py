"""``citynet config``: the sample cannot drift, every mistake is one clear line, and values tell where they come from."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from citynet.runtime import reference
from citynet.runtime.cli_config import app
from citynet.runtime.settings import load

ASSIGNMENT = re.compile(r"^#([a-z][a-z0-9_]* = )", re.MULTILINE)
HEADING = re.compile(r"^#(\[[a-z0-9_.]+\])$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a settings file of its own."""
    monkeypatch.chdir(tmp_path)


def _config(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def _problems(path: Path | None = None) -> list[str]:
    result = _config("check", "--json", *(("--config", path) if path else ()))
    assert result.exit_code == 1
    found: list[str] = json.loads(result.stdout)["problems"]
    return found


def _file(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_sample_as_printed_is_all_defaults(tmp_path: Path) -> None:
    path = _file(tmp_path, _config("sample").stdout)
    tables, missing = reference.models()
    assert not missing
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {name: {} for name in tables}
    for model in tables.values():
        assert load(model, path) == load(model, None)


def test_sample_with_every_line_active_is_all_defaults(tmp_path: Path) -> None:
    lines = [line for line in _config("sample").stdout.splitlines() if '= "…"' not in line]
    active = HEADING.sub(r"\1", ASSIGNMENT.sub(r"\1", "\n".join(lines)))
    # TLS is switched on by its table's mere presence, so that heading stays off.
    path = _file(tmp_path, re.sub(r"^\[.*\.tls\]$", "", active, flags=re.MULTILINE))
    tables, _ = reference.models()
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, model in tables.items():
        assert load(model, path) == load(model, None)
        for setting in reference.defaults(name, model):
            here = data
            for part in setting.path[:-1]:
                here = here.get(part, {})
            assert (setting.path[-1] in here) == (setting.value is not None), setting.name


def test_sample_of_some_tables_only() -> None:
    assert set(tomllib.loads(_config("sample", "log", "database").stdout)) == {"log", "database"}
    result = _config("sample", "weather")
    assert result.exit_code == 1
    assert "table weather: unknown" in result.stderr


def test_every_setting_has_a_description_and_a_type_in_words() -> None:
    tables, _ = reference.models()
    for name, model in tables.items():
        settings = reference.defaults(name, model)
        assert settings
        for setting in settings:
            assert len(setting.about) >= 5, f"{setting.name}: no description"
            assert re.fullmatch(r"[a-z ,]+", setting.kind), setting.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[log]\nlevle = 'info'\n", "some.toml: log.levle: Extra inputs are not permitted"),
        ("[ingest]\nreceive_maximum = 'many'\n", "some.toml: ingest.receive_maximum: "),
        ("[ingest]\nshards = '9-70'\n", "some.toml: ingest.shards: "),
        ("[gateway.uplink]\nport = 70000\n", "some.toml: gateway.uplink.port: "),
        ("[weather]\nsun = true\n", "some.toml: [weather]: unknown table"),
        ("log = 3\n", "some.toml: log: must be a table"),
        ("[log\n", "some.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = _problems(_file(tmp_path, text))
    assert expected in problem
    assert "\n" not in problem


def test_all_mistakes_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYNET_LOG_COLOUR", "red")
    monkeypatch.setenv("CITYNET_WEATHER_SUN", "1")
    path = _file(tmp_path, "[weather]\n[log]\nlevel = 'loud'\n[ingest]\nsettle_s = -1\nsnapshot_s = 0\n")
    problems = _problems(path)
    for expected in (
        "[weather]: unknown table",
        "log.level: ",
        "ingest.settle_s: ",
        "ingest.snapshot_s: ",
        "environment CITYNET_LOG_COLOUR: unknown setting",
        "environment CITYNET_WEATHER_SUN: unknown setting",
    ):
        assert sum(expected in problem for problem in problems) == 1, (expected, problems)
    assert len(problems) == 6
    plain = _config("check", "--config", path)
    assert plain.stderr.splitlines() == problems


def test_a_wrong_value_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYNET_INGEST_RECEIVE_MAXIMUM", "70000")
    (problem,) = _problems()
    assert problem.startswith("environment CITYNET_INGEST_RECEIVE_MAXIMUM: ")


def test_a_named_file_that_is_absent(tmp_path: Path) -> None:
    assert _problems(tmp_path / "gone.toml") == [f"{tmp_path / 'gone.toml'}: no such file"]


def test_without_a_file_everything_is_default() -> None:
    assert _config("check").exit_code == 0
    origins = {row["origin"] for row in json.loads(_config("show", "--json").stdout)}
    assert origins == {"default"}


def test_show_tells_where_each_value_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(
        tmp_path, "[log]\nlevel = 'warning'\nformat = 'json'\n[gateway.uplink]\nhost = 'a.example'\nport = 8883\n"
    )
    monkeypatch.setenv("CITYNET_LOG_LEVEL", "error")
    monkeypatch.setenv("CITYNET_GATEWAY_UPLINK__HOST", "b.example")
    monkeypatch.setenv("CITYNET_SIM_CITY", '{"area_km2": 3}')
    rows = {row["setting"]: row for row in json.loads(_config("show", "--json", "--config", path).stdout)}

    def told(name: str) -> tuple[object, str, str]:
        return rows[name]["value"], rows[name]["origin"], rows[name]["where"]

    assert told("log.level") == ("error", "environment", "CITYNET_LOG_LEVEL")
    assert told("log.format") == ("json", "file", str(path))
    assert told("gateway.uplink.host") == ("b.example", "environment", "CITYNET_GATEWAY_UPLINK__HOST")
    assert told("gateway.uplink.port") == (8883, "file", str(path))
    assert told("gateway.local.port") == (1883, "default", "")
    assert told("sim.city.area_km2") == (3.0, "environment", "CITYNET_SIM_CITY")
    assert told("sim.city.population")[1] == "default"
    only_log = _config("show", "log", "--config", path).stdout.splitlines()
    assert only_log == [
        'log.level   "error"  [environment CITYNET_LOG_LEVEL]',
        f'log.format  "json"  [file {path}]',
    ]


def test_the_variable_it_names_does_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = next(
        row["variable"] for row in json.loads(_config("show", "--json").stdout) if row["setting"] == "sim.city.area_km2"
    )
    monkeypatch.setenv(variable, "7.5")
    rows = {row["setting"]: row for row in json.loads(_config("show", "sim", "--json").stdout)}
    assert (rows["sim.city.area_km2"]["value"], rows["sim.city.area_km2"]["where"]) == (7.5, variable)


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:s3cret@db/x", "host=db password=s3cret", "host=db password = 's3cret'"]
)
def test_show_never_prints_a_password(tmp_path: Path, dsn: str) -> None:
    path = _file(tmp_path, f'[database]\ndsn = "{dsn}"\n')
    shown = _config("show", "--config", path).stdout
    assert "s3cret" not in shown
    assert "***" in shown


def test_one_key_of_an_inner_table_keeps_the_defaults_of_the_others(tmp_path: Path) -> None:
    tables, _ = reference.models()
    for name, model in tables.items():
        before = {setting.name: setting.value for setting in reference.defaults(name, model)}
        for setting in reference.defaults(name, model):
            if len(setting.path) != 3 or setting.value is None:
                continue
            path = _file(
                tmp_path, f"[{'.'.join(setting.path[:-1])}]\n{setting.path[-1]} = {json.dumps(setting.value)}\n"
            )
            after = {item.name: item.value for item in reference.effective(name, load(model, path))}
            assert after == before, setting.name
