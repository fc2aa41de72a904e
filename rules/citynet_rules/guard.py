"""Rules that throw on data: which of them it was, so that they can be taken out and the others run on.

A kernel that throws leaves the states of its kind half changed, so nothing of that engine is of use any more. Whoever owns it
makes a new one, from a snapshot and the readings since, without the rules that `RuleFailedError` names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import numpy as np

from citynet.errors import CitynetError
from citynet_rules.derived import Derived
from citynet_rules.group import Group
from citynet_rules.kinds.kind import Kernel, Pairs, Progress, Segments
from citynet_rules.rule import Rule, names_in
from citynet_rules.spec import RuleSet
from citynet_rules.transition import Event

_Act = Callable[[Kernel, Pairs], list[Event]]


class RuleFailedError(CitynetError):
    """These rules threw; the engine's state is of no use any more."""

    def __init__(self, rules: Iterable[str], why: str) -> None:
        self.rules = tuple(sorted(rules))
        self.why = why
        super().__init__(f"{', '.join(self.rules)}: failed on data: {why}")


def fed(group: Group, segments: Segments) -> list[Event]:
    """What comes of readings.

    Raises:
        RuleFailedError: it threw; names the rules that throw alone as well, or all of the group if none does.
    """
    return _guarded(group, lambda kernel, pairs: kernel.feed(pairs, segments))


def advanced(group: Group, progress: Progress) -> list[Event]:
    """What comes of time. Raises as `fed`."""
    return _guarded(group, lambda kernel, pairs: kernel.advance(pairs, progress))


def _guarded(group: Group, act: _Act) -> list[Event]:
    try:
        return act(group.kernel, group.pairs)
    except Exception as error:
        raise RuleFailedError(_culprits(group, act), repr(error)) from error


def _culprits(group: Group, act: _Act) -> list[str]:
    """Each rule alone, on a copy of its states."""
    found = [rule.id for number, rule in enumerate(group.rules) if _throws(group, number, rule, act)]
    return found or [rule.id for rule in group.rules]


def _throws(group: Group, number: int, rule: Rule, act: _Act) -> bool:
    pairs = Pairs(group.kind.state)
    own = np.flatnonzero(group.pairs.rule == number)
    pairs.add(np.zeros(len(own), np.int32), group.pairs.slot[own], group.pairs.state[own])
    try:
        act(group.kind.kernel([rule]), pairs)
    except Exception:  # noqa: BLE001  (the question is whether it throws, whatever it is)
        return True
    return False


def users_of(name: str, rules: Iterable[Rule], derived: Iterable[Derived]) -> list[str]:
    """Rules that need a derived metric, directly or through others."""
    needed, every = {name}, list(derived)
    while more := {each.name for each in every if each.name not in needed and names_in(each) & needed}:
        needed |= more
    return [rule.id for rule in rules if names_in(rule) & needed]


def without(rules: RuleSet, failed: Collection[str]) -> RuleSet:
    """A rule set without some rules, and without derived metrics that nobody else needs."""
    if not failed:
        return rules
    kept = tuple(rule for rule in rules if rule.id not in failed)
    used = tuple(each for each in rules.derived if users_of(each.name, kept, rules.derived))
    return replace(rules, rules=kept, derived=used)
