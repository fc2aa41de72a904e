"""City overrides: ``[[override]]`` tables that change settings of a rule written elsewhere, without a copy of it.

An override names the rule by id and says who changed it, why and since when; every other key is a setting of that rule. The
keys of an inner table (``levels``) are put over the rule's own, ``false`` takes one away; anything else is replaced whole. What
comes of it is checked as if it had been written so.

A rule that decides otherwise than the one it came from has a version of its own, ``1+`` and eight digits of its fingerprint:
its state, its score and its alerts are not those of the shipped rule. Changed words, contacts or mode keep the version.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citynet_rules.kinds import KINDS
from citynet_rules.rule import Line, Override, Rule
from citynet_rules.rulefile import Key, RuleFile

OVERRIDE = "override"
FIXED = frozenset(
    {"id", "version", "kind", "metric", "domain", "standard", "edition", "clause", "jurisdiction", "status", "source",
     OVERRIDE}
)  # fmt: skip
"""What a rule is, and where its own numbers come from: a rule that differs in these is another rule."""
IN_UNIT = frozenset({"levels", "hysteresis", "low", "high", "threshold", "tolerance", "sigma_min", "resolution"})
"""Settings whose numbers are nothing without a unit: whoever changes one of them names the rule's unit."""
Problem = tuple[int, str, str]


class Head(BaseModel):
    """What an override says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rule: Line
    author: Line
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    date: dt.date
    unit: Line | None = None
    armed: bool = True


@dataclass(frozen=True)
class Written:
    """Table `number` of kind `name` ("rule" or "override") in a file, as it was parsed."""

    source: RuleFile
    name: str
    number: int
    table: Mapping[str, Any]

    def line(self, *key: str) -> int:
        return self.source.line((self.name, self.number, *key))

    def place(self, *key: str) -> str:
        """``file:line`` of a key, or of what stands around it."""
        return f"{self.source.path}:{self.line(*key)}"

    def has(self, *key: str) -> bool:
        inner: object = self.table
        for part in key:
            if not isinstance(inner, Mapping) or part not in inner:
                return False
            inner = inner[part]
        return True


@dataclass(frozen=True)
class Places:
    """Where a rule's settings stand: the table that it is, and the override over it."""

    rule: Written
    over: Written | None = None

    def of(self, *key: str) -> str:
        """``file:line`` of a setting; "default" if no file says it."""
        if self.over is not None and key[0] not in Head.model_fields and self.over.has(*key):
            return self.over.place(*key)
        if self.over is not None and key == ("version",):
            return self.over.place()
        return self.rule.place(*key) if self.rule.has(*key) else "default"


def head_of(written: Written) -> tuple[Head | None, list[Problem]]:
    """What an override says of itself, or what is wrong with that."""
    given = {key: value for key, value in written.table.items() if key in Head.model_fields}
    try:
        return Head.model_validate(given), []
    except ValidationError as error:
        name = written.table.get("rule")
        owner = f"{OVERRIDE} of {name[:64]}" if isinstance(name, str) else f"{OVERRIDE}[{written.number}]"
        return None, [_told(written, owner, dict(item)) for item in error.errors(include_url=False)]


def unknown_rule(written: Written, name: str, known: list[str]) -> Problem:
    """There is no such rule; names one that is spelled alike."""
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return written.line("rule"), f"{OVERRIDE}.rule", f"there is no rule {name[:64]!r}{hint}"


def overridden(base: Rule, rule: Written, over: Written, head: Head) -> tuple[Rule | None, list[Problem]]:
    """`base`, written at `rule`, as it is with `over`; or every mistake of the override."""
    model = KINDS[base.kind].model
    settings = {str(key): value for key, value in over.table.items() if key not in Head.model_fields}
    problems: list[Problem] = []
    for key in settings:
        if key in FIXED:
            problems.append((over.line(key), f"{base.id}.{key}", "cannot be overridden: write a rule of your own"))
        elif key not in model.model_fields:
            problems.append((over.line(key), f"{base.id}.{key}", f"unknown key of a rule of kind {base.kind}"))
    numbers = sorted(settings.keys() & IN_UNIT)
    if head.unit is not None and head.unit != base.unit:
        message = f"{head.unit!r} is not the unit of {base.id}, {base.unit!r}"
        problems.append((over.line("unit"), f"{base.id}.unit", message))
    elif head.unit is None and numbers and not problems:
        message = f"is missing: {', '.join(numbers)} are numbers in {base.unit!r}"
        problems.append((over.line(), f"{base.id}.unit", message))
    known = {key: value for key, value in settings.items() if key not in FIXED and key in model.model_fields}
    merged = _merged(rule.table, known)
    facts = {"author": head.author, "reason": head.reason, "date": head.date, "changed": tuple(sorted(known))}
    try:
        found = model.model_validate({**merged, OVERRIDE: Override.model_validate(facts)})
    except ValidationError as error:
        problems += [_told(over, base.id, dict(item)) for item in error.errors(include_url=False)]
        return None, problems
    if problems:
        return None, problems
    if found.fingerprint != base.fingerprint:
        version = f"{base.version}+{found.fingerprint[:8]}"
        found = model.model_validate({**merged, OVERRIDE: found.override, "version": version})
    return found, []


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The rule's table with the override's settings over it; inner tables by key, ``false`` takes a key away."""
    merged = {str(key): value for key, value in table.items()}
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            both = {**before, **value}
            merged[key] = {name: inner for name, inner in both.items() if inner is not False}
        else:
            merged[key] = value
    return merged


def _told(over: Written, owner: str, item: Mapping[str, Any]) -> Problem:
    """A mistake that pydantic found, at the override's line."""
    location: Key = tuple(part for part in item["loc"] if part != "[key]")
    line = over.line(*(str(part) for part in location))
    where = ".".join([owner, *(str(part) for part in location)])
    kind = item["type"]
    if kind == "missing":
        message = "is missing"
    elif kind == "value_error":
        message = str(item["ctx"]["error"])
    else:
        text = str(item["msg"])
        message = f"{text[0].lower()}{text[1:]} (got {str(item['input'])[:60]!r})"
    return line, where, " ".join(message.split())
