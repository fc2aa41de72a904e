"""What is wrong with rules beyond their form: units and metrics against the vocabulary (`metrics.toml`), overlaps, guidance,
dates. Errors cannot be meant; warnings may be.

Errors: a unit that is not the metric's, of a rule or of an operand. Warnings: a metric that is not in the vocabulary, be it
watched, an operand, a member, a witness or of a condition; a threshold outside the metric's scale, guidance missing in a
language, a rule whose validity has ended or not begun, and two rules of one kind, metric and direction that select the same
devices by their globs (one literally contains the other's, or both are ``*``) with levels that cross.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Literal

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_rules.derived import Operand
from citynet_rules.kinds.accumulate import AccumulateRule
from citynet_rules.kinds.graded import GradedRule
from citynet_rules.kinds.limit import LimitRule
from citynet_rules.kinds.relation import RelationRule
from citynet_rules.kinds.residual import ResidualRule
from citynet_rules.kinds.sequence import SequenceRule
from citynet_rules.kinds.vote import VoteRule
from citynet_rules.kinds.witness import WitnessRule
from citynet_rules.rule import COLOURS, Rule
from citynet_rules.spec import DERIVED, Broken, RuleSet, read_rules


@dataclass(frozen=True)
class Metric:
    """A metric of the vocabulary; `low` and `high` in `unit`, `also` are other writings of the unit."""

    unit: str
    low: float
    high: float
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """`origin` is ``file:line`` of the rule."""

    severity: Literal["error", "warning"]
    origin: str
    where: str
    message: str

    def __str__(self) -> str:
        mark = "" if self.severity == "error" else "warning: "
        return f"{self.origin}: {mark}{self.where}: {self.message}"


def vocabulary() -> dict[str, Metric]:
    """The known metrics by name."""
    text = Path(__file__).with_name("metrics.toml").read_text(encoding="utf-8")
    return {
        name: Metric(facts["unit"], facts["low"], facts["high"], tuple(facts.get("also", ())))
        for name, facts in tomllib.loads(text).items()
    }


METRICS = vocabulary()


def lint(rules: RuleSet, today: date) -> list[Finding]:
    """All findings, in order of the rules."""
    found: list[Finding] = []
    derived = frozenset(rules.derived_origins)
    for broken in rules.broken:
        for severity, field, message in _of_table(broken, derived):
            found.append(Finding(severity, broken.place(*field.split(".")), f"{broken.name}.{field}", message))
    for each in rules.derived:
        for severity, field, message in _of_operands(each.operands, derived):
            found.append(Finding(severity, rules.derived_origins.get(each.name, ""), f"{each.name}.{field}", message))
    for rule in rules:
        for severity, field, message in _of_rule(rule, derived, today):
            origin = rules.place(rule.id, *field.split("."))
            found.append(Finding(severity, origin, f"{rule.id}.{field}", message))
    for one, other in combinations(rules, 2):
        if message := _overlap(one, other):
            where = rules.place(other.id, "levels")
            found.append(
                Finding("warning", where, f"{other.id}.levels", f"{message} {rules.origins.get(one.id, one.id)}")
            )
    return found


def armable(paths: Sequence[Path]) -> RuleSet:
    """The rules of these files, for those who let them run.

    Raises:
        ConfigError: with all problems, those of form and those that `lint` calls errors.
    """
    rules, problems = read_rules(paths)
    problems += [str(finding) for finding in lint(rules, date.min) if finding.severity == "error"]
    if problems:
        raise ConfigError(problems)
    return rules


Plain = tuple[Literal["error", "warning"], str, str]
_GUIDANCE = ("guidance_zh", "guidance_en")
_UNGUIDED = "is missing: nobody is told what to do"


def _stranger(name: str) -> str:
    return f"{name} is not in the vocabulary (metrics.toml)"


def _of_table(broken: Broken, derived: frozenset[str]) -> Iterator[Plain]:
    """What can be said of a table that could not be read as what it is meant for."""
    table, operands = broken.table, broken.table.get("operands")
    named: list[tuple[str, object]] = [] if broken.kind == DERIVED else [("", table)]
    if isinstance(operands, Mapping):
        named += [(f"operands.{name}.", operand) for name, operand in operands.items()]
    for prefix, each in named:
        if not isinstance(each, Mapping):
            continue
        metric, unit = each.get("metric"), each.get("unit")
        if each.get("kind") == "accumulate" and each.get("per"):
            unit = f"{unit}/{each['per']}"
        if isinstance(metric, str) and is_id(metric) and metric not in derived:
            yield from _of_pair(prefix, metric, unit if isinstance(unit, str) else None)
    if broken.kind != DERIVED:
        yield from (("warning", field, _UNGUIDED) for field in _GUIDANCE if not table.get(field))


def _of_pair(prefix: str, metric: str, unit: str | None) -> Iterator[Plain]:
    """A metric and the unit it is said to have; None where nobody can tell what was meant."""
    known = METRICS.get(metric)
    if known is None:
        yield "warning", f"{prefix}metric", _stranger(metric)
    elif unit is not None and unit not in (known.unit, *known.also):
        yield "error", f"{prefix}unit", f"{unit} is not the unit of {metric}, {known.unit}"


def _of_operands(operands: Mapping[str, Operand], derived: frozenset[str]) -> Iterator[Plain]:
    for name, operand in operands.items():
        if operand.metric not in derived:  # units of derived metrics were checked when the files were read
            yield from _of_pair(f"operands.{name}.", operand.metric, operand.unit)


def _of_others(rule: Rule, derived: frozenset[str]) -> Iterator[Plain]:
    """Metrics that a rule names beside the one that it watches."""
    named = [(f"when.{n}", each.metric) for n, each in enumerate(rule.when) if each.metric and each.maintenance is None]
    if isinstance(rule, WitnessRule):
        named += [(f"beside.{n}", each.metric) for n, each in enumerate(rule.beside)]
    if isinstance(rule, ResidualRule | RelationRule):
        yield from _of_operands(rule.operands, derived)
        named += _members(rule.series(), {each.metric for each in rule.operands.values()})
    if isinstance(rule, VoteRule | SequenceRule):
        named += _members(rule.series(), {rule.metric})
    for field, metric in dict.fromkeys(named):
        if metric not in METRICS and metric not in derived:
            yield "warning", field, _stranger(metric)


def _members(series: Mapping[str, Sequence[tuple[str, str]]], told: set[str]) -> list[tuple[str, str]]:
    """Metrics that members name themselves, by the object's key."""
    return [(f"objects.{name}", metric) for name, of in series.items() for _, metric in of if metric not in told]


def _of_metric(rule: Rule) -> Iterator[Plain]:
    unit = f"{rule.unit}/{rule.per}" if isinstance(rule, AccumulateRule) and rule.per else rule.unit
    yield from _of_pair("", rule.metric, unit)
    metric = METRICS.get(rule.metric)
    if isinstance(rule, LimitRule) and metric is not None and unit in (metric.unit, *metric.also):
        for colour, level in rule.levels.items():
            if not metric.low <= level <= metric.high:
                scale = f"{metric.low:g} to {metric.high:g} {metric.unit}"
                yield "warning", f"levels.{colour}", f"{level:g} lies outside the scale of {rule.metric}, {scale}"


def _of_rule(rule: Rule, derived: frozenset[str], today: date) -> Iterator[Plain]:
    if rule.metric not in derived:  # its unit was checked when the files were read, and it has no scale
        yield from _of_metric(rule)
    yield from _of_others(rule, derived)
    yield from (("warning", field, _UNGUIDED) for field in _GUIDANCE if not getattr(rule, field))
    if rule.valid_to is not None and rule.valid_to < today:
        yield "warning", "valid_to", f"the rule was valid to {rule.valid_to}"
    if rule.valid_from is not None and rule.valid_from > today:
        yield "warning", "valid_from", f"the rule is valid from {rule.valid_from} on"


def _is_sooner(one: Rule, other: Rule, above: float) -> bool:
    """Whether the one of the higher level raises after a shorter time: more for a moment, or less for longer."""
    delays = getattr(one, "on_delay_s", 0.0), getattr(other, "on_delay_s", 0.0)
    return above != 0 and (above > 0) == (delays[0] < delays[1]) and delays[0] != delays[1]


def _overlap(one: Rule, other: Rule) -> str:
    """Why two rules contradict each other, or nothing."""
    if (one.kind, one.metric) != (other.kind, other.metric) or not _share(one.devices, other.devices):
        return ""
    if not isinstance(one, LimitRule | GradedRule) or not isinstance(other, LimitRule | GradedRule):
        return ""
    settings = ("direction", "window_s", "table", "per", "over_s", "measure", "low_hz", "high_hz")
    if any(getattr(one, name, None) != getattr(other, name, None) for name in settings):
        return ""
    sign = -1 if isinstance(one, LimitRule) and one.direction == "low" else 1
    for mild, severe in ((one, other), (other, one)):
        for position, colour in enumerate(COLOURS):
            for worse in COLOURS[position:]:
                a, b = mild.levels.get(colour), severe.levels.get(worse)
                if a is None or b is None or (colour == worse and _is_sooner(mild, severe, sign * (a - b))):
                    continue
                if sign * a > sign * b or (colour == worse and a != b):
                    return f"{worse} {b:g} and {colour} {a:g} cross on the same devices: {one.id} at"
    return ""


def _share(one: Sequence[str], other: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(a, b) or fnmatch.fnmatchcase(b, a) for a in one for b in other)
