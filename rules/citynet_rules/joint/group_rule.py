"""What rules over several series have in common: their objects, each a list of series."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from citynet.ids import is_id
from citynet_rules.colour import Age
from citynet_rules.derived import OPERANDS_MAX, WAIT_S_DEFAULT, Operand, check_names
from citynet_rules.kinds.graded import GradedRule

OBJECTS_MAX = 1000
MEMBERS_MAX = 64
Members = Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=MEMBERS_MAX)]


class GroupRule(GradedRule):
    """A rule whose objects are groups of series: `objects` has a list of ``device`` or ``device/metric`` (default: the rule's
    `metric`) by the object's name. An object is watched once all of its series are known."""

    objects: Annotated[dict[str, Members], Field(min_length=1, max_length=OBJECTS_MAX)]
    wait_s: Age = WAIT_S_DEFAULT

    @field_validator("objects")
    @classmethod
    def _objects(cls, objects: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, members in objects.items():
            if not is_id(name):
                raise ValueError(f"object {name[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -")
            for member in members:
                if not all(map(is_id, member.split("/"))) or member.count("/") > 1:
                    raise ValueError(f"object {name}: {member[:130]!r} is no device, nor device/metric")
        return objects

    @model_validator(mode="after")
    def _apart(self) -> GroupRule:
        """A series belongs to one object at most: alerts of two objects would have one cause."""
        owner: dict[tuple[str, str], str] = {}
        for name, members in self.series().items():
            for device, metric in members:
                if (device, metric) in owner:
                    other = owner[device, metric]
                    again = "it twice" if other == name else f"object {other} too"
                    raise ValueError(f"object {name} has {device}/{metric}, {again}: objects must not overlap")
                owner[device, metric] = name
        return self

    @model_validator(mode="after")
    def _conditions_name_devices(self) -> GroupRule:
        if any(condition.watched and condition.device is None for condition in self.when):
            raise ValueError("when: a rule over several series has no device of its own: name the condition's device")
        return self

    def series(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """(device, metric) of the members of every object."""
        return {
            name: tuple((of.partition("/")[0], of.partition("/")[2] or self.metric) for of in members)
            for name, members in self.objects.items()
        }

    def members(self) -> dict[str, list[str]]:
        """`series` as text, for evidence."""
        return {name: [f"{device}/{metric}" for device, metric in of] for name, of in self.series().items()}


class OperandRule(GroupRule):
    """A rule whose members have names: `operands`, in the order in which every object lists its members. The metric of an
    operand is that of the members which name none."""

    operands: Annotated[dict[str, Operand], Field(min_length=1, max_length=OPERANDS_MAX)]

    @field_validator("operands")
    @classmethod
    def _names(cls, operands: dict[str, Operand]) -> dict[str, Operand]:
        check_names(operands)
        return operands

    @model_validator(mode="after")
    def _all_there(self) -> OperandRule:
        for name, members in self.objects.items():
            if len(members) != len(self.operands):
                raise ValueError(f"object {name} has {len(members)} members, there are {len(self.operands)} operands")
        return self

    def series(self) -> dict[str, tuple[tuple[str, str], ...]]:
        metrics = [operand.metric for operand in self.operands.values()]
        return {
            name: tuple(
                (of.partition("/")[0], of.partition("/")[2] or m) for of, m in zip(members, metrics, strict=False)
            )
            for name, members in self.objects.items()
        }
