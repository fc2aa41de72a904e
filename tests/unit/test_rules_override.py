"""City overrides of shipped rules: what they come to, where each value stands, and every mistake as one line."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner

from citynet.errors import ConfigError
from citynet_rules.cli import app
from citynet_rules.cli_replay import chosen
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.kinds.limit import LimitRule
from citynet_rules.lint import lint
from citynet_rules.proof.gate import KeptScore, effective
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet, library_paths, load_rules
from tests.property.rules_streams import SECOND, batch
from tests.property.rules_streams import Reading as Row

RUN = CliRunner().invoke
SHIPPED = {rule.id: rule for rule in load_rules(library_paths())}
VOID = """\
[[override]]
rule = "gas-ch4-void"
author = "Li Wei"
reason = "city order 12"
date = 2026-11-01
unit = "%LEL"
levels = { red = 25.0 }
on_delay_s = 10
"""


def write(folder: Path, text: str, name: str = "city.toml") -> Path:
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def one(rules: RuleSet, ident: str = "gas-ch4-void") -> Rule:
    (rule,) = [rule for rule in rules if rule.id == ident]
    return rule


def problems(*paths: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_rules(paths)
    return [line.replace(f"{paths[-1].parent}/", "") for line in caught.value.problems]


def head(rule: str = "gas-ch4-void", more: str = "") -> str:
    return f'[[override]]\nrule = "{rule}"\nauthor = "li"\nreason = "r"\ndate = 2026-11-01\n{more}'


def test_settings_are_put_over_the_shipped_rule(tmp_path: Path) -> None:
    rules = load_rules([*library_paths(), write(tmp_path, VOID)])
    rule, shipped = one(rules), SHIPPED["gas-ch4-void"]
    assert isinstance(rule, LimitRule)
    assert len(rules) == len(SHIPPED)
    assert (rule.levels, rule.on_delay_s) == ({"orange": 20.0, "red": 25.0}, 10.0)
    assert (rule.title_zh, rule.guidance_en, rule.standard) == (shipped.title_zh, shipped.guidance_en, shipped.standard)
    assert rule.override is not None
    assert (rule.override.author, rule.override.reason, rule.override.date) == (
        "Li Wei",
        "city order 12",
        date(2026, 11, 1),
    )
    assert rule.override.changed == ("levels", "on_delay_s")
    others = [each for each in rules if each.id != rule.id]
    assert all(each.digest == SHIPPED[each.id].digest for each in others), "the others are as shipped"


def test_the_override_is_part_of_the_rules_identity(tmp_path: Path) -> None:
    """Version, state, score and decision to arm are of the overridden rule, not of the shipped one."""
    shipped, rule = SHIPPED["gas-ch4-void"], one(load_rules([write(tmp_path, VOID)]))
    assert rule.version.startswith(f"{shipped.version}+")
    assert (rule.fingerprint, rule.digest) != (shipped.fingerprint, shipped.digest)
    again = one(load_rules([write(tmp_path, VOID)]))
    assert (again.version, again.digest) == (rule.version, rule.digest)
    other = one(load_rules([write(tmp_path, VOID.replace("25.0", "26.0"))]))
    assert other.version != rule.version
    signed = one(load_rules([write(tmp_path, VOID.replace("Li Wei", "Wang"))]))
    assert (signed.version, signed.fingerprint) == (rule.version, rule.fingerprint), "what decides is the same"
    assert signed.digest != rule.digest, "who answers for it is not"


def test_words_contacts_and_mode_do_not_start_a_rule_afresh(tmp_path: Path) -> None:
    more = 'guidance_en = "Call 96777."\ncontacts = ["Gas emergency 96777"]\nmode = "shadow"\n'
    rule, shipped = one(load_rules([write(tmp_path, head(more=more))])), SHIPPED["gas-ch4-void"]
    assert (rule.version, rule.fingerprint, rule.mode) == (shipped.version, shipped.fingerprint, "shadow")
    assert rule.contacts == ("Gas emergency 96777",)
    assert rule.digest != shipped.digest


def test_a_score_of_the_shipped_rule_is_none_of_the_overridden_one(tmp_path: Path) -> None:
    floor = write(tmp_path, head(more="score_floor = { recall = 0.9 }\n"), "floor.toml")
    shipped = one(load_rules([floor]))
    scores = {shipped.fingerprint: KeptScore(date(2026, 1, 1), 1.0, 1.0)}  # type: ignore[arg-type]
    assert effective(RuleSet((shipped,)), scores, ())[1] == {}
    changed = one(load_rules([write(tmp_path, VOID + "score_floor = { recall = 0.9 }\n")]))
    running, why = effective(RuleSet((changed,)), scores, ())
    assert why == {"gas-ch4-void": "has a score_floor and no kept score"}
    assert one(running).mode == "shadow"


def test_a_level_is_taken_away_and_a_rule_switched_off(tmp_path: Path) -> None:
    text = head(more='unit = "%LEL"\nlevels = { orange = false }\n') + head("gas-h2s", "armed = false\n")
    path = write(tmp_path, text)
    rules = load_rules([*library_paths(), path])
    rule = one(rules)
    assert isinstance(rule, LimitRule)
    assert rule.levels == {"red": 50.0}
    assert "gas-h2s" not in {each.id for each in rules}
    assert rules.off == {"gas-h2s": f"{path}:13"}


def test_a_citys_own_rule_and_yaml(tmp_path: Path) -> None:
    library = Path(SHIPPED_ORIGIN["gas-h2s"].rpartition(":")[0])
    text = "override:\n  - rule: gas-h2s\n    author: li\n    reason: r\n    date: 2026-11-01\n    on_delay_s: 5\n"
    rules = load_rules([library, write(tmp_path, text, "city.yaml")])
    assert one(rules, "gas-h2s").model_dump()["on_delay_s"] == 5.0


SHIPPED_ORIGIN = load_rules(library_paths()).origins


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (head("gas-ch4-viod"), ["city.toml:2: override.rule: there is no rule 'gas-ch4-viod'; did you mean gas-ch4-void?"]),
        (head(more="on_delay = 3\n"), ["city.toml:6: gas-ch4-void.on_delay: unknown key of a rule of kind limit"]),
        (head(more="metric = 'x'\n"), ["city.toml:6: gas-ch4-void.metric: cannot be overridden: write a rule of your own"]),
        (head(more="version = 2\n"), ["city.toml:6: gas-ch4-void.version: cannot be overridden: write a rule of your own"]),
        (
            head(more='unit = "ppm"\nlevels = { red = 60.0 }\n'),
            ["city.toml:6: gas-ch4-void.unit: 'ppm' is not the unit of gas-ch4-void, '%LEL'"],
        ),
        (
            head(more="levels = { red = 60.0 }\n"),
            ["city.toml:1: gas-ch4-void.unit: is missing: levels are numbers in '%LEL'"],
        ),
        (
            head(more='unit = "%LEL"\nlevels = { red = 15.0 }\n'),
            ["city.toml:7: gas-ch4-void.levels: red 15 must be above orange 20 (direction high)"],
        ),
        (
            head(more='unit = "%LEL"\nlevels = { red = 21.0 }\n'),
            ["city.toml:1: gas-ch4-void.hysteresis: 2 must be smaller than the distance of two levels, 1"],
        ),
        (
            head(more="on_delay_s = -5\n"),
            ["city.toml:6: gas-ch4-void.on_delay_s: input should be greater than or equal to 0 (got '-5')"],
        ),
        (head(more="mode = 'off'\n"), ["city.toml:6: gas-ch4-void.mode: input should be 'live' or 'shadow' (got 'off')"]),
        ('[[override]]\nrule = "gas-h2s"\n',
         [f"city.toml:1: override of gas-h2s.{key}: is missing" for key in ("author", "date", "reason")]),
        (head() + head(), ["city.toml:7: override of gas-ch4-void: is already overridden at city.toml:1"]),
        ("override = 7\n", ["city.toml:1: override: [[override]] tables were expected",
                            "city.toml:1: rule: at least one [[rule]] was expected"]),
        ("[[rule]]\noverride = 1\n", None),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(tmp_path: Path, text: str, expected: list[str] | None) -> None:
    path = write(tmp_path, text)
    found = problems(*library_paths(), path)
    if expected is None:
        assert "city.toml:2: rule[0].override: unknown key" in found
    else:
        assert found == expected


def test_all_mistakes_at_once_and_with_those_of_rules(tmp_path: Path) -> None:
    text = head(more="on_delay_s = -1\nfoo = 1\n") + head("nobody") + '[[rule]]\nid = "x"\n'
    found = problems(write(tmp_path, text))
    lines = [line.split(": ")[0:2] for line in found]
    assert ["city.toml:6", "gas-ch4-void.on_delay_s"] in lines
    assert ["city.toml:7", "gas-ch4-void.foo"] in lines
    assert ["city.toml:9", "override.rule"] in lines
    assert ["city.toml:13", "x.kind"] in lines
    result = RUN(app, ["check", str(tmp_path / "city.toml")])
    assert result.exit_code == 1
    told = [line.replace(f"{tmp_path}/", "") for line in result.stderr.splitlines()]
    assert [line for line in told if "warning: x.guidance_" not in line] == found


def test_lint_points_at_the_override(tmp_path: Path) -> None:
    path = write(tmp_path, VOID.replace("25.0", "2500.0"))
    assert [str(each) for each in lint(load_rules([path]), date(2026, 6, 1))] == [
        f"{path}:7: warning: gas-ch4-void.levels.red: 2500 lies outside the scale of ch4_lel, -2 to 100 %"
    ]


def test_show_says_where_every_value_comes_from(tmp_path: Path) -> None:
    path = write(tmp_path, VOID)
    shown = RUN(app, ["show", str(path), "--json"])
    (rule,) = json.loads(shown.stdout)
    places, origin = rule["places"], SHIPPED_ORIGIN["gas-ch4-void"]
    library = origin.rpartition(":")[0]
    assert (rule["levels"], rule["on_delay_s"]) == ({"orange": 20.0, "red": 25.0}, 10.0)
    assert (places["levels.red"], places["on_delay_s"]) == (f"{path}:7", f"{path}:8")
    assert places["levels.orange"].startswith(f"{library}:")
    assert places["unit"].startswith(f"{library}:")
    assert (places["version"], places["devices"]) == (f"{path}:1", "default")
    text = RUN(app, ["show", "gas-ch4-void", str(path)]).stdout
    assert "overridden by Li Wei on 2026-11-01: city order 12" in text
    (line,) = [line for line in text.splitlines() if line.startswith("on_delay_s ")]
    assert line.split() == ["on_delay_s", "10", f"{path}:8"]


def test_show_reads_the_files_of_the_settings(tmp_path: Path) -> None:
    path, config = write(tmp_path, VOID), tmp_path / "citynet.toml"
    config.write_text(f"[ingest]\nrules = [{json.dumps(str(path))}]\n", encoding="utf-8")
    rules = {rule["id"]: rule for rule in json.loads(RUN(app, ["show", "--json", "--config", str(config)]).stdout)}
    assert len(rules) == len(SHIPPED)
    assert rules["gas-ch4-void"]["places"]["on_delay_s"] == f"{path}:8"
    missing = RUN(app, ["show", "gas-nothing", "--config", str(config)])
    assert (missing.exit_code, missing.stderr) == (1, "error: there is no rule gas-nothing\n")


def test_check_counts_them(tmp_path: Path) -> None:
    path = write(tmp_path, VOID + head("gas-h2s", "armed = false\n"))
    result = RUN(app, ["check", str(path)])
    assert result.stdout == "1 rules in 1 files, no problems\n1 of them overridden, 1 switched off\n"


def test_replay_with_new_overrides_puts_them_over_the_shipped_rules(tmp_path: Path) -> None:
    """An override on trial takes the place of the one that the settings name; it is not put on top of it."""
    armed = write(tmp_path, VOID, "armed.toml")
    trial = write(tmp_path, VOID.replace("on_delay_s = 10", "off_delay_s = 7") + head("gas-h2s", "armed = false\n"))
    choice = chosen(None, [trial], lambda: [*library_paths(), armed])
    rule = one(choice.rules)
    assert isinstance(rule, LimitRule)
    assert (rule.on_delay_s, rule.off_delay_s, rule.levels["red"]) == (30.0, 7.0, 25.0)
    assert len(choice.rules) == len(SHIPPED) - 1
    assert "gas-h2s" not in {each.id for each in choice.rules}


def test_golden_cases_of_a_city_run_on_its_overrides(tmp_path: Path) -> None:
    write(tmp_path, VOID)
    write(tmp_path, "from_s,to_s,step_s,device,value,to_value\n0,20,5,gas-1,26,\n", "gas-ch4-void.csv")
    write(tmp_path, "10 gas-1 raise red 26\n", "gas-ch4-void.expected")
    result = RUN(app, ["test", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "1 cases, 0 differ\n")


def test_the_evidence_names_who_changed_the_limit(tmp_path: Path) -> None:
    engine = Engine(load_rules([write(tmp_path, VOID)]))
    engine.bind([SeriesInfo(1, "gas-1", "ch4_lel", "gw")])
    (raised,) = engine.feed(batch([Row(1, t * SECOND, 30.0, 0) for t in (0, 10)])).transitions
    assert raised.limit == 25.0
    assert raised.evidence["override"] == {
        "author": "Li Wei", "reason": "city order 12", "date": "2026-11-01", "changed": ["levels", "on_delay_s"],
    }  # fmt: skip


def test_derived_metrics_come_with_the_rule_that_needs_them(tmp_path: Path) -> None:
    base = write(
        tmp_path,
        """\
        [[derived]]
        name = "loss"
        unit = "m3/h"
        expression = "a - b"
        operands.a = { metric = "water_flow_m3_h", unit = "m3/h", max_age_s = 60 }
        operands.b = { metric = "deep", unit = "m3/h", max_age_s = 60 }

        [[derived]]
        name = "deep"
        unit = "m3/h"
        expression = "a"
        operands.a = { metric = "water_flow_m3_h", unit = "m3/h", max_age_s = 60 }

        [[derived]]
        name = "unused"
        unit = "m3/h"
        expression = "a"
        operands.a = { metric = "water_flow_m3_h", unit = "m3/h", max_age_s = 60 }

        [[rule]]
        id = "loss-high"
        version = 1
        kind = "limit"
        title_zh = "x"
        title_en = "x"
        domain = "water"
        metric = "loss"
        unit = "m3/h"
        standard = "s"
        edition = "1"
        status = "D"
        direction = "high"
        levels = { red = 5.0 }
        """,
        "base.toml",
    )
    city = write(tmp_path, head("loss-high", "on_delay_s = 5\n"))
    rules = load_rules([city], [base])
    assert {each.name for each in rules.derived} == {"loss", "deep"}
    plain = one(load_rules([base]), "loss-high")
    assert one(rules, "loss-high").fingerprint != plain.fingerprint
