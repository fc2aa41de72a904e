"""Mistakes in derived metrics, conditions and rules over several series: one clear line each, with file and line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from citynet.errors import ConfigError
from citynet_rules import unit
from citynet_rules.evaluate import evaluate, named
from citynet_rules.expression import DEPTH_MAX, LENGTH_MAX, ExpressionError, compile_
from citynet_rules.spec import RuleSet, load_rules

GOOD = """\
time_zone = "Asia/Shanghai"

[[derived]]
name = "head_m"
unit = "m"
expression = "(p_out - p_in) / (1000 [kg/m3] * 9.81 [m/s2])"
[derived.operands]
p_in = { metric = "p_in_kpa", unit = "kPa", max_age_s = 60 }
p_out = { metric = "p_out_kpa", unit = "kPa", max_age_s = 60 }

[[rule]]
id = "r"
version = 1
kind = "limit"
title_zh = "测"
title_en = "t"
domain = "water"
metric = "head_m"
unit = "m"
standard = "none"
edition = "1"
status = "D"
direction = "low"
levels = { yellow = 20 }
[[rule.when]]
hours = ["06:00-22:00"]
[[rule.when]]
metric = "running"
equal = 1
max_age_s = 600

[[rule]]
id = "v"
version = 1
kind = "vote"
title_zh = "测"
title_en = "t"
domain = "water"
metric = "x"
unit = "MPa"
standard = "none"
edition = "1"
status = "D"
direction = "low"
threshold = 0.14
within_s = 300
levels = { red = 2 }
objects = { ring = ["a", "b", "c/y"], tail = ["d", "e"] }
"""


def load(folder: Path, text: str) -> RuleSet:
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return load_rules([path])


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_the_example_loads(tmp_path: Path) -> None:
    rules = load(tmp_path, GOOD)
    assert [each.name for each in rules.derived] == ["head_m"]
    assert rules.rules[0].when[0].time_zone == "Asia/Shanghai"


def test_a_rule_is_another_one_when_what_it_is_derived_from_is(tmp_path: Path) -> None:
    """Else a decision to arm it, its score and its state would be kept for something that nobody has judged."""
    over = GOOD + (
        '\n[[derived]]\nname = "p_in_kpa"\nunit = "kPa"\nexpression = "x / 1"\n'
        '[derived.operands]\nx = { metric = "raw_kpa", unit = "kPa", max_age_s = 60 }\n'
    )
    before = load(tmp_path, over).rules
    same = load(tmp_path, over.replace('raw_kpa", unit', 'raw_kpa",  unit')).rules
    after = load(tmp_path, over.replace("x / 1", "x / 2")).rules
    for name in ("fingerprint", "digest"):
        assert [getattr(rule, name) for rule in same] == [getattr(rule, name) for rule in before]
        assert getattr(after[0], name) != getattr(before[0], name), "one step behind what the rule names"
        assert getattr(after[1], name) == getattr(before[1], name), "a rule that names none of them"
    assert before[0].selects("pump-1", "head_m")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('time_zone = "Asia/Shanghai"', "", "r.toml:25: r.when.0: time_zone is missing (here, or at the head of the file)"),
        ("Asia/Shanghai", "Asia/Shangrila", "r.toml:1: time_zone: unknown time zone 'Asia/Shangrila'"),
        ("(p_out - p_in)", "(p_out + 1)", "r.toml:6: head_m.expression: column 8: '+' of kg.m-1.s-2 and 1"),
        ("- p_in) /", "- p_inn) /", "r.toml:6: head_m.expression: column 10: 'p_inn' is no operand (known: p_in, p_out)"),
        ("(p_out - p_in)", "(p_out - p_in", "r.toml:6: head_m.expression: column 45: ')' was expected"),
        ("(p_out - p_in)", "p_out", "r.toml:6: head_m.expression: operand p_in is not used"),
        ("[m/s2])", "[m/s2]) * 2 [s]", "r.toml:6: head_m.expression: column 47: the result is in m.s, the unit says m"),
        ('"kPa", max_age_s = 60 }\np_out', '"kPaa", max_age_s = 60 }\np_out', "r.toml:8: head_m.operands.p_in.unit: "),
        ("p_in = {", "where = {", "r.toml:7: head_m.operands: 'where' cannot name an operand"),
        ('metric = "head_m"\nunit = "m"', 'metric = "head_m"\nunit = "cm"', "r.toml:12: r.unit: 'cm', but head_m is in 'm'"),
        ("06:00-22:00", "6-22", "r.toml:26: r.when.0.hours: '6-22': hours such as 08:30-17:00 or 22:00-06:00 were expected"),
        ("equal = 1\n", "", "r.toml:27: r.when.1: at_least, at_most or equal is missing"),
        ("max_age_s = 600\n", "", "r.toml:27: r.when.1: max_age_s is missing"),
        ("max_age_s = 600\n", "max_age_s = 600\ndays = ['mon']\n", "r.toml:27: r.when.1: equal, max_age_s, metric does not"),
        ('["a", "b", "c/y"]', '["a", "b", "e"]', "r.toml:32: v: object tail has e/x, object ring too: "),
        ('["a", "b", "c/y"]', '["a", "b", "b"]', "r.toml:32: v: object ring has b/x, it twice: objects must not overlap"),
        ('["a", "b", "c/y"]', '["a", "b c"]', "r.toml:48: v.objects: object ring: 'b c' is no device, nor device/metric"),
        ("red = 2", "red = 3", "r.toml:32: v: 3 votes of an object with 2 members: never reached"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_clear_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == 1, found
    assert found[0].startswith(expected), found


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("- p_in)", "- p_x)").replace("06:00-22:00", "x").replace("red = 2", "red = 3")
    assert [line.split(" ")[1] for line in problems(tmp_path, text)] == ["head_m.expression:", "r.when.0.hours:", "v:"]


def test_a_cycle_is_told_with_its_path(tmp_path: Path) -> None:
    words = '[[derived]]\nname = "{}"\nunit = "1"\nexpression = "x + 1"\n'
    table = words + 'operands.x = {{ metric = "{}", unit = "1", max_age_s = 1 }}\n'
    found = problems(tmp_path, "".join(table.format(*of) for of in ("ab", "bc", "ca", "da", "ee")))
    assert found == ["r.toml:2: a.operands: cycle: a -> b -> c -> a", "r.toml:22: e.operands: cycle: e -> e"]


def test_silence_behind_conditions_has_the_source_as_clock(tmp_path: Path) -> None:
    text = GOOD.replace('kind = "limit"', 'kind = "stale"').replace('direction = "low"\nlevels = { yellow = 20 }', (
        'level = "blue"\nmax_age_s = 60\nclock = "server"'
    ))  # fmt: skip
    assert [line.split(": ")[1] for line in problems(tmp_path, text)] == ["r.clock"]


KNOWN = {"q": unit.parse("m3/h"), "p": unit.parse("kPa"), "n": unit.ONE, "t": unit.parse("Cel")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "column 1: a value was expected"),
        ("n +", "column 4: a value was expected"),
        ("n § 2", "column 3: '§' is not understood"),
        ("n.real", "column 2: '.' is not understood"),
        ("__import__('os')", 'column 12: "\'" is not understood'),
        ("eval(n)", "column 1: unknown function 'eval'"),
        ("n n", "column 3: 'n' does not belong here"),
        ("1 < n < 2", "column 7: comparisons cannot be chained: use and"),
        ("n and 1", "column 1: 'and' takes conditions, this is a value in 1"),
        ("(n > 1) + 1", "column 4: '+' takes values, this is a condition"),
        ("min(n)", "column 1: min takes 2 to 16 values, not 1"),
        ("q ** n", "column 6: the exponent of a value in m3.s-1 must be a number"),
        ("n ** p", "column 6: an exponent has no unit"),
        ("log(p)", "column 5: log takes a bare number, this is in kg.m-1.s-2"),
        ("delta(n + 1, 5 [s])", "column 9: delta looks back at an operand, not at an expression"),
        ("delta(n, 5)", "column 10: delta takes a constant time such as 10 [min]"),
        ("mean(n, 2 [d])", "column 9: 172800 s: above 0, at most 86400 s"),
        ("1 + 2", "column 1: there is no operand in it"),
        ("n * 1e999", "column 5: the number is too large"),
        ("n > 3 [furlong]", "column 7: unit 'furlong': 'furlong' is not known"),
        ("(" * 40 + "n" + ")" * 40, f"column {DEPTH_MAX + 1}: nested deeper than {DEPTH_MAX}"),
        ("-" * 40 + "n", f"column {DEPTH_MAX + 1}: nested deeper than {DEPTH_MAX}"),
        ("+".join("n" * 102), "column 202: more than 100 operators"),
        ("n" * (LENGTH_MAX + 1), f"column 1: {LENGTH_MAX + 1} characters, at most {LENGTH_MAX}"),
    ],
)
def test_an_expression_that_is_wrong_says_where(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_(text, KNOWN, unit.ONE)
    assert str(caught.value).startswith(expected), str(caught.value)


@pytest.mark.parametrize(
    ("text", "of", "expected"),
    [
        ("2 + 3 * n ** 2", "1", 50.0),
        ("-n ** 2", "1", -16.0),
        ("2 ** -1 * n", "1", 2.0),
        ("where(n >= 4 and not (n > 5 or n == 3), min(n, 7), max(n, 9, 1))", "1", 4.0),
        ("clip(n, 5, 6) - abs(-1) + sqrt(n)", "1", 6.0),
        ("exp(log(n))", "1", 4.0),
        ("q", "L/s", 10.0),
        ("q / 2 [m2]", "mm/s", 5.0),
        ("t", "K", 293.15),
        ("t - 10 [Cel]", "K", 10.0),
        ("q > 30 [m3/h]", "1", 1.0),
        ("sqrt(2 * p / 1000 [kg/m3])", "m/s", 2.0),
    ],
)
def test_an_expression_has_this_value(text: str, of: str, expected: float) -> None:
    values = {"q": 36 / 3600, "p": 2000.0, "n": 4.0, "t": 293.15}
    result = unit.parse(of)
    formula = compile_(text, KNOWN, result)
    columns = {named(name): np.array([value]) for name, value in values.items()}
    got = (float(evaluate(formula.node, columns, 1)[0]) - float(result.offset)) / float(result.factor)
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "factor", "dimension"),
    [
        ("kW.h", Fraction(3_600_000), "kg.m2.s-2"),
        ("ug/m3", Fraction(1, 10**9), "kg.m-3"),
        ("/min", Fraction(1, 60), "s-1"),
        ("%{vol}", Fraction(1, 100), "1"),
        ("m.s-2", Fraction(1), "m.s-2"),
        ("%LEL", Fraction(1), "LEL"),
        ("MOhm", Fraction(10**6), "A-2.kg.m2.s-3"),
    ],
)
def test_units(text: str, factor: Fraction, dimension: str) -> None:
    of = unit.parse(text)
    assert (of.factor, unit.named(of.dimension)) == (factor, dimension)


@pytest.mark.parametrize("text", ["", "m//s", "mm/Cel", "kPA", "m/", "furlong", "m" * 65, "k%"])
def test_units_that_are_not_understood(text: str) -> None:
    with pytest.raises(unit.UnitError):
        unit.parse(text)


def test_a_witness_of_what_is_derived_is_refused_because_it_would_never_speak(tmp_path: Path) -> None:
    rule = """
[[rule]]
id = "w"
version = 1
kind = "witness"
title_zh = "测"
title_en = "t"
domain = "device"
metric = "head_m"
unit = "m"
standard = "none"
edition = "1"
status = "D"
level = "blue"
band = 1
hold_s = 30
beside = [{ metric = "x", gain = 1.0, band = 1.0 }]
"""
    reason = "is a derived metric: witnesses are read, not made, and it would never speak"
    (found,) = problems(tmp_path, GOOD + rule)
    assert found.endswith(f": w.metric: head_m {reason}")
    beside = rule.replace('metric = "head_m"', 'metric = "p"').replace('{ metric = "x"', '{ metric = "head_m"')
    (found,) = problems(tmp_path, GOOD + beside)
    assert found.endswith(f": w.beside.0.metric: head_m {reason}")
