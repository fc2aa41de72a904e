"""Rule files: what is accepted, and that every mistake is one line with file, line, rule and field."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from citynet.errors import ConfigError
from citynet_rules.kinds.limit import LimitRule, gap_s_max, off_delay_s
from citynet_rules.kinds.stale import StaleRule
from citynet_rules.rulefile import BYTES_MAX, toml_lines
from citynet_rules.spec import load_rules

GOOD = """\
[[rule]]
id = "r1"
version = 3
kind = "limit"
title_zh = "甲"
title_en = "A"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
standard = "none"
edition = "1"
status = "D"
direction = "high"
levels = { red = 50, orange = 20 }
hysteresis = 2
on_delay_s = 30
"""


def write(folder: Path, text: str, name: str = "r.toml") -> Path:
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def problems(*paths: Path) -> list[str]:
    """The problems of these files, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load_rules(paths)
    return [line.replace(f"{paths[0].parent}/", "") for line in caught.value.problems]


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_limit_rule_with_its_defaults(tmp_path: Path) -> None:
    rules = load_rules([write(tmp_path, GOOD)])
    (rule,) = rules
    assert isinstance(rule, LimitRule)
    assert (rule.id, rule.version, rule.devices, rule.jurisdiction) == ("r1", "3", ("*",), "CN")
    assert list(rule.levels.items()) == [("orange", 20.0), ("red", 50.0)]  # mildest first, whatever the file's order
    assert (off_delay_s(rule), gap_s_max(rule)) == (60.0, 900.0)
    assert rules.origins == {"r1": f"{tmp_path}/r.toml:2"}


def test_the_gap_grows_with_the_delay(tmp_path: Path) -> None:
    (rule,) = load_rules([write(tmp_path, replaced("on_delay_s = 30", "on_delay_s = 600\noff_delay_s = 0"))])
    assert isinstance(rule, LimitRule)
    assert (off_delay_s(rule), gap_s_max(rule)) == (0.0, 2400.0)


def test_yaml_says_the_same(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
        rule:
          - id: s1
            version: "2026-1"
            kind: stale
            title_zh: 乙
            title_en: B
            domain: device
            metric: gateway_uptime_s
            devices: ["gw-*", "edge-[0-9]"]
            unit: s
            standard: none
            edition: "1"
            status: D
            level: orange
            max_age_s: 60
            clock: server
        """,
        "r.yaml",
    )
    (rule,) = load_rules([path])
    assert isinstance(rule, StaleRule)
    assert (rule.version, rule.level, rule.max_age_s, rule.clock) == ("2026-1", "orange", 60.0, "server")
    assert rule.selects("gw-7", "gateway_uptime_s")
    assert rule.selects("edge-3", "gateway_uptime_s")
    assert not rule.selects("edge-33", "gateway_uptime_s")
    assert not rule.selects("gw-7", "ch4_lel")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('id = "r1"', 'id = "r 1"', "r.toml:2: r 1.id: 'r 1' is not 1..64 of A-Z a-z 0-9 . _ -"),
        ('id = "r1"\n', "", "r.toml:1: rule[0].id: is missing"),
        ("version = 3", "version = true", "r.toml:3: r1.version: input should be a valid string (got 'True')"),
        ("version = 3", 'version = ""', "r.toml:3: r1.version: must not be empty"),
        ('kind = "limit"', 'kind = "limits"', "r.toml:4: r1.kind: unknown kind 'limits' (known: accumulate, "),
        ('title_zh = "甲"\n', "", "r.toml:1: r1.title_zh: is missing"),
        ('"gas"', '"Gas!"', "r.toml:7: r1.domain: string should match pattern '^[a-z][a-z0-9-]{0,31}$' (got 'Gas!')"),
        ('metric = "ch4_lel"', "metric = 4", "r.toml:8: r1.metric: input should be a valid string (got '4')"),
        ('status = "D"', 'status = "X"', "r.toml:12: r1.status: input should be 'P', 'Q', 'C', 'U' or 'D' (got 'X')"),
        ('"high"', '"up"', "r.toml:13: r1.direction: input should be 'high' or 'low' (got 'up')"),
        (
            "{ red = 50, orange = 20 }",
            "{ red = 20, orange = 20 }",
            "r.toml:14: r1.levels: red 20 must be above orange 20 (direction high)",
        ),
        ('"high"', '"low"', "r.toml:14: r1.levels: red 50 must be below orange 20 (direction low)"),
        ("{ red = 50, orange = 20 }", "{}", "r.toml:14: r1.levels: dictionary should have at least 1 item"),
        ("red = 50", "red = nan", "r.toml:14: r1.levels: red is nan: a finite number was expected"),
        ("red = 50", "red = -inf", "r.toml:14: r1.levels: red is -inf: a finite number was expected"),
        ("red = 50", 'red = "50"', "r.toml:14: r1.levels.red: input should be a valid number (got '50')"),
        ("red = 50", "pink = 50", "r.toml:14: r1.levels.pink: input should be 'blue', 'yellow', 'orange' or 'red'"),
        (
            "hysteresis = 2",
            "hysteresis = 30",
            "r.toml:15: r1.hysteresis: 30 must be smaller than the distance of two lev",
        ),
        ("hysteresis = 2", "hysteresis = -1", "r.toml:15: r1.hysteresis: input should be greater than or equal to 0"),
        ("hysteresis = 2", "hysteresis = inf", "r.toml:15: r1.hysteresis: input should be a finite number (got 'inf')"),
        ("on_delay_s = 30", "on_delay_s = -1", "r.toml:16: r1.on_delay_s: input should be greater than or equal to 0"),
        ("on_delay_s = 30", "on_delay_s = nan", "r.toml:16: r1.on_delay_s: input should be "),
        (
            "on_delay_s = 30",
            "on_delay_s = 1e9",
            "r.toml:16: r1.on_delay_s: input should be less than or equal to 2592000",
        ),
        (
            "on_delay_s = 30",
            "on_delay_s = true",
            "r.toml:16: r1.on_delay_s: input should be a valid number (got 'True')",
        ),
        ("on_delay_s = 30", "gap_s_max = 0", "r.toml:16: r1.gap_s_max: input should be greater than 0 (got '0')"),
        ("on_delay_s = 30", "on_delay = 30", "r.toml:16: r1.on_delay: unknown key"),
        ("on_delay_s = 30", 'devices = ["a", "[x"]', "r.toml:16: r1.devices: bad glob '[x': "),
        ("on_delay_s = 30", 'devices = ["a b"]', "r.toml:16: r1.devices: bad glob 'a b': "),
        ("on_delay_s = 30", "devices = []", "r.toml:16: r1.devices: tuple should have at least 1 item"),
        (
            "on_delay_s = 30",
            'template_zh = "{x}"',
            "r.toml:16: r1.template_zh: unknown placeholder {x} (known: device, ",
        ),
        (
            "on_delay_s = 30",
            'template_en = "{value:.2f}"',
            "r.toml:16: r1.template_en: {value} takes no format or conv",
        ),
        ("on_delay_s = 30", 'template_en = "{value"', "r.toml:16: r1.template_en: bad template: "),
        ("on_delay_s = 30", 'template_en = "{}"', "r.toml:16: r1.template_en: unknown placeholder {} (known: "),
        (
            "on_delay_s = 30",
            "[other]",
            "r.toml:16: other: unknown key (a rule file holds [[rule]], [[derived]], [[override]] and [neighbours.METRIC]",
        ),
    ],
)
def test_each_mistake_is_one_clear_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = problems(write(tmp_path, replaced(old, new)))
    assert len([line for line in found if line.startswith(expected)]) == 1, found
    assert all("\n" not in line for line in found)


def test_all_mistakes_of_all_files_at_once(tmp_path: Path) -> None:
    wrong = replaced("hysteresis = 2", "hysteresis = -2\nfoo = 1").replace('status = "D"', 'status = "?"')
    first = write(tmp_path, wrong + GOOD.replace("limit", "nonsense"))
    second = write(tmp_path, GOOD, "second.toml")
    third = write(tmp_path, "rule = [", "third.toml")
    lines = problems(first, second, third, tmp_path / "absent.toml")
    assert [line.split(": ")[0:2] for line in lines] == [
        ["r.toml:12", "r1.status"],
        ["r.toml:15", "r1.hysteresis"],
        ["r.toml:16", "r1.foo"],
        ["r.toml:19", "r1.id"],
        ["r.toml:21", "r1.kind"],
        ["second.toml:2", "r1.id"],
        ["third.toml:1", "not TOML"],
        ["absent.toml", "No such file or directory"],
    ]
    assert lines[3].endswith("is already the id of the rule at r.toml:2")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "r.toml", ["r.toml:1: rule: at least one [[rule]] was expected"]),
        ("", "r.yaml", ["r.yaml:1: rule: at least one [[rule]] was expected"]),
        ("rule = 5\n", "r.toml", ["r.toml:1: rule: at least one [[rule]] was expected"]),
        ("rule = [5]\n", "r.toml", ["r.toml:1: rule[0]: a table was expected"]),
        ("- 1\n", "r.yaml", ["r.yaml:1: a table with the key rule was expected, found list"]),
        ("a: [\n", "r.yml", ["r.yml:2: not YAML: expected the node content, but found '<stream end>'"]),
        ("x = 1\nx = 2\n", "r.toml", ["r.toml:2: not TOML: Cannot overwrite a value"]),
        ("x", "r.json", ["r.json: not a rule file: the name must end in .toml, .yaml, .yml"]),
    ],
)
def test_files_that_are_no_rule_files(tmp_path: Path, text: str, name: str, expected: list[str]) -> None:
    assert problems(write(tmp_path, text, name)) == expected


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"x = '\xff'")
    assert problems(path) == ["r.toml: not UTF-8 at byte 5"]


def test_a_file_beyond_the_bound(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (BYTES_MAX + 1))
    assert problems(path) == [f"r.toml: {BYTES_MAX + 1} bytes, at most {BYTES_MAX}"]


def test_yaml_points_at_lines_and_refuses_double_keys(tmp_path: Path) -> None:
    text = """\
    rule:
      - id: r1
        version: 1
        kind: stale
        level: blue
        level: red
        max_age_s: .inf
        7: seven
      - 5
    """
    found = problems(write(tmp_path, text, "r.yaml"))
    assert "r.yaml:6: r1.level: stands twice" in found
    assert "r.yaml:7: r1.max_age_s: input should be a finite number (got 'inf')" in found
    assert "r.yaml:8: r1.7: unknown key" in found
    assert "r.yaml:9: rule[1]: a table was expected" in found
    assert "r.yaml:2: r1.metric: is missing" in found


def test_a_yaml_bomb_is_only_a_mistake(tmp_path: Path) -> None:
    bomb = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    found = problems(write(tmp_path, "\n".join(bomb), "r.yaml"))
    assert len(found) == 10


def test_toml_lines_of_every_way_to_write_a_key() -> None:
    lines = toml_lines(
        dedent(
            '''\
            # [[rule]] in a comment
            [[rule]]
            id = "a"
            text = """
            id = "not a key"
            """
            one = """line"""
            "quoted key" = 1
            levels.red = 1
            list = [
              1,
            ]
            [rule.sub]
            x = 1

            [[rule]]  # second
            id = "b"
            [rule.sub]
            x = { y = 2 }
            '''
        )
    )
    assert lines["rule", 0] == 2
    assert lines["rule", 0, "id"] == 3
    assert lines["rule", 0, "text"] == 4
    assert lines["rule", 0, "one"] == 7
    assert lines["rule", 0, "quoted key"] == 8
    assert (lines["rule", 0, "levels"], lines["rule", 0, "levels", "red"]) == (9, 9)
    assert (lines["rule", 0, "sub"], lines["rule", 0, "sub", "x"]) == (13, 14)
    assert lines["rule", 1] == 16
    assert lines["rule", 1, "id"] == 17
    assert lines["rule", 1, "sub", "x"] == 19
    assert ("rule", 2) not in lines
