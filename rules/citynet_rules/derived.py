"""Derived metrics: `[[derived]]` of a rule file. A metric that is computed from others of the same device, and watched by
rules like any other.

A value exists at each time at which an operand has a reading and every operand is known: its newest usable reading up to
that time is not older than its `max_age_s`; a look back (`delta`, `lag`) needs a reading that was not older than that at
the earlier time, `mean` one within its time. A result that is no finite number is no value.

It is computed when no operand can still have a reading up to its time, so it does not matter in which order they arrive;
an operand whose gateway is silent is waited for `wait_s` by the server's clock.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Annotated

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from citynet.ids import is_id
from citynet_rules import unit
from citynet_rules.colour import Age
from citynet_rules.expression import RESERVED, Formula, compile_, parse

OPERANDS_MAX = 16
WAIT_S_DEFAULT = 900.0
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)


class Operand(BaseModel):
    """A metric of the same device; `max_age_s` in seconds of event time."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    metric: str
    unit: str
    max_age_s: Age

    @field_validator("metric")
    @classmethod
    def _metric(cls, text: str) -> str:
        return checked_id(text)

    @field_validator("unit")
    @classmethod
    def _unit(cls, text: str) -> str:
        unit.parse(text)
        return text


class Derived(BaseModel):
    """A derived metric."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    unit: str
    operands: Annotated[dict[str, Operand], Field(min_length=1, max_length=OPERANDS_MAX)]
    expression: str
    devices: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=64)] = ("*",)
    wait_s: Age = WAIT_S_DEFAULT
    description_zh: Annotated[str, Field(max_length=500)] = ""
    description_en: Annotated[str, Field(max_length=500)] = ""

    @field_validator("name")
    @classmethod
    def _id(cls, text: str) -> str:
        return checked_id(text)

    @field_validator("unit")
    @classmethod
    def _unit(cls, text: str) -> str:
        unit.parse(text)
        return text

    @field_validator("operands")
    @classmethod
    def _names(cls, operands: dict[str, Operand]) -> dict[str, Operand]:
        check_names(operands)
        return operands

    @field_validator("expression")
    @classmethod
    def _expression(cls, text: str, info: ValidationInfo) -> str:
        operands, result = info.data.get("operands"), info.data.get("unit")
        if operands is None or result is None:  # those have mistakes of their own
            parse(text)
        else:
            formula = compile_(text, units_of(operands), unit.parse(result))
            if idle := sorted(operands.keys() - set(formula.names)):
                raise ValueError(f"operand {', '.join(idle)} is not used")
        return text

    @cached_property
    def formula(self) -> Formula:
        """The checked expression."""
        return compile_(self.expression, units_of(self.operands), unit.parse(self.unit))

    @cached_property
    def _device_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(fnmatch.translate(glob) for glob in self.devices))

    def selects(self, device: str) -> bool:
        """Whether it is computed for this device."""
        return self._device_pattern.match(device) is not None

    @cached_property
    def fingerprint(self) -> str:
        """Names what a kept state depends on."""
        facts = self.model_dump(include={"name", "unit", "operands", "expression", "wait_s"})
        return blake2b(msgspec.json.encode(facts, order="deterministic"), digest_size=16).hexdigest()


def checked_id(text: str) -> str:
    """`text` if it may name a device or a metric."""
    if not is_id(text):
        raise ValueError(f"{text[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -")
    return text


def check_names(operands: Iterable[str]) -> None:
    """ValueError: a name that an expression cannot use."""
    for name in operands:
        if _NAME.fullmatch(name) is None or name in RESERVED:
            raise ValueError(
                f"{name[:80]!r} cannot name an operand: a letter, then letters, digits, _; no function's name"
            )


def units_of(operands: Mapping[str, Operand]) -> dict[str, unit.Unit]:
    """Units by operand."""
    return {name: unit.parse(operand.unit) for name, operand in operands.items()}


def closures(ordered: Iterable[Derived]) -> dict[str, str]:
    """By name what each derived metric is computed by, those that it is computed from included; `ordered` as by `in_order`."""
    found: dict[str, str] = {}
    for each in ordered:
        behind = [found[operand.metric] for operand in each.operands.values() if operand.metric in found]
        found[each.name] = blake2b("/".join([each.fingerprint, *behind]).encode(), digest_size=16).hexdigest()
    return found


def in_order(derived: Iterable[Derived]) -> tuple[list[Derived], list[tuple[str, ...]]]:
    """Derived metrics, each behind those it is computed from; and the cycles among the others, each as the path back to its
    beginning: ``(a, b, a)``."""
    by_name = {each.name: each for each in derived}
    done: dict[str, Derived] = {}
    cycles: list[tuple[str, ...]] = []

    def visit(name: str, path: tuple[str, ...]) -> bool:
        """Whether it could be placed."""
        if name in done or name not in by_name:
            return True
        if name in path:
            cycle = (*path[path.index(name) :], name)
            if not any(set(cycle) == set(known) for known in cycles):
                cycles.append(cycle)
            return False
        needed = sorted(operand.metric for operand in by_name[name].operands.values())
        placed = [visit(metric, (*path, name)) for metric in needed]  # every one, to find every cycle
        if all(placed):
            done[name] = by_name[name]
            return True
        return False

    for name in by_name:
        visit(name, ())
    return list(done.values()), cycles
