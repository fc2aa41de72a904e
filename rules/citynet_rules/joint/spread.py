"""Joins whose series come to several places: an engine that is given some of the city's series can't put those in one order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from citynet_rules.joint.front import JointKind
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.witness import WitnessRule
from citynet_rules.rule import Rule

Near = Mapping[str, Mapping[str, Sequence[str]]]


class Spread(NamedTuple):
    """What of a rule is not evaluated here as it is written.

    Attributes:
        rule: its id.
        objects: objects of it that have members here and elsewhere: they are evaluated nowhere. Empty if `device` is one that
            the rule's conditions name: they count as unknown, for the rule's objects that are here.
        device: a device whose readings come elsewhere.
        unheard: of a rule of kind `witness`, how many devices have neighbours whose readings come elsewhere: those are not
            heard, what it says may differ.
    """

    rule: str
    objects: tuple[str, ...]
    device: str
    unheard: int = 0

    def __str__(self) -> str:
        if self.unheard:
            return f"rule {self.rule}: neighbours of {self.unheard} devices are not heard here, such as {self.device}"
        if not self.objects:
            return f"rule {self.rule}: its conditions on {self.device} are unknown here"
        more = f" and {len(self.objects) - 1} more" if len(self.objects) > 1 else ""
        return f"rule {self.rule}: {self.objects[0]}{more} not evaluated, {self.device} is elsewhere"


def may_spread(rules: Iterable[Rule], near: Near) -> bool:
    """Whether any rule joins several devices: most rule sets have none that does."""
    return any(isinstance(KINDS[rule.kind], JointKind) or _named(rule) or _neighbours(rule, near) for rule in rules)


def spread(rules: Iterable[Rule], is_here: Mapping[str, bool], near: Near) -> list[Spread]:
    """What is not evaluated as written, by rule.

    Args:
        is_here: for every known device whether its readings come here; others are not missed.
        near: neighbouring devices, by metric and device.
    """
    found: list[Spread] = []
    for rule in rules:
        beside = {
            device: [other for other in others if not is_here.get(other, True)]
            for device, others in _neighbours(rule, near).items()
            if is_here.get(device, False) and rule.selects(device, rule.metric)
        }
        unheard = [others[0] for others in beside.values() if others]
        if unheard:
            found.append(Spread(rule.id, (), unheard[0], len(unheard)))
        kind = KINDS[rule.kind]
        if isinstance(kind, JointKind):
            members = {name: [device for device, _ in of] for name, of in kind.front(rule).objects.items()}
            homes = {name: {is_here[device] for device in of if device in is_here} for name, of in members.items()}
            torn = tuple(sorted(name for name, of in homes.items() if len(of) > 1))
            if torn:
                device = next(device for device in members[torn[0]] if not is_here.get(device, True))
                found.append(Spread(rule.id, torn, device))
            is_watched = any(True in of for of in homes.values())
        else:
            is_watched = any(here and rule.selects(device, rule.metric) for device, here in is_here.items())
        away = [device for device in _named(rule) if not is_here.get(device, True)]
        if away and is_watched:
            found.append(Spread(rule.id, (), away[0]))
    return found


def _neighbours(rule: Rule, near: Near) -> Mapping[str, Sequence[str]]:
    """Whom it asks beside a device: the same metric there."""
    return near.get(rule.metric, {}) if isinstance(rule, WitnessRule) and rule.neighbours else {}


def _named(rule: Rule) -> list[str]:
    """Devices that its conditions name."""
    return [condition.device for condition in rule.when if condition.watched and condition.device is not None]
