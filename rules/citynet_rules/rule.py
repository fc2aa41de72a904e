"""One rule as data: what every kind has in common. A kind adds its own fields by subclassing `Rule`.

A rule names its metric, the devices it watches, its unit and where its numbers come from (standard, edition, clause,
status mark); kinds add thresholds and times. Unknown keys are errors, numbers are finite, everything is bounded.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cached_property
from hashlib import blake2b
from string import Formatter
from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from citynet.ids import is_id
from citynet_rules.colour import COLOURS, COLOURS_ZH, Age, Colour, Delay, level_of, microseconds
from citynet_rules.condition import CONDITIONS_MAX, Condition

__all__ = ["COLOURS", "COLOURS_ZH", "Age", "Colour", "Delay", "Rule", "level_of", "microseconds"]

# P read in the primary text, Q quoted by a secondary page, C seen in public code or data, U unverified own
# knowledge, D design proposal. A rule carries the weakest mark of its numbers.
Status = Literal["P", "Q", "C", "U", "D"]

# A rule in shadow is evaluated and its alerts are kept; nobody is shown them unless they ask, and it flags no readings.
Mode = Literal["live", "shadow"]

PLACEHOLDERS = frozenset({"value", "limit", "unit", "device", "metric", "since"})
GLOBS_MAX = 64
CONTACTS_MAX = 8

Line = Annotated[str, Field(min_length=1, max_length=200)]
Optional = Annotated[str, Field(max_length=200)]
Prose = Annotated[str, Field(max_length=2000)]

_CONDITIONS = {"when", "when_unknown", "when_ends", "when_wait_s"}  # say nothing where there is none
_ADDED = {"tells"}  # keys that came later to kinds that exist: without them a rule is the one it was
_GLOB = re.compile(r"(?:[A-Za-z0-9._*?-]|\[!?[A-Za-z0-9._-]+\])+")


class ScoreFloor(BaseModel):
    """What a rule must have reached, at least, in its last kept score before it may be armed live."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    precision: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    recall: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.precision is None and self.recall is None:
            raise ValueError("needs precision, recall or both")
        return self


class Override(BaseModel):
    """That a city changed `changed` settings of a rule, and who answers for it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    author: Line
    reason: str
    date: date
    changed: tuple[str, ...]


class Rule(BaseModel):
    """The fields of every rule. `status` is the weakest mark of the rule's numbers, `source` the place they were
    read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str
    version: str
    kind: str
    title_zh: Line
    title_en: Line
    domain: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    metric: str
    devices: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=GLOBS_MAX)] = ("*",)
    unit: Line
    basis: Optional = ""
    standard: Line
    edition: Line
    clause: Optional = ""
    jurisdiction: Line = "CN"
    status: Status
    source: Optional = ""
    valid_from: date | None = None
    valid_to: date | None = None
    mode: Mode = "live"
    score_floor: ScoreFloor | None = None
    guidance_zh: Prose = ""
    guidance_en: Prose = ""
    contacts: Annotated[tuple[Line, ...], Field(strict=False, max_length=CONTACTS_MAX)] = ()
    template_zh: Annotated[str, Field(max_length=500)] = ""
    template_en: Annotated[str, Field(max_length=500)] = ""
    when: Annotated[tuple[Condition, ...], Field(strict=False, max_length=CONDITIONS_MAX)] = ()
    when_unknown: Literal["met", "unmet"] = "unmet"
    when_ends: Literal["clear", "hold"] = "clear"
    when_wait_s: Age = 900.0
    override: Override | None = None  # set by the loader; no rule file may say it
    _rests_on: tuple[str, ...] = ()  # fingerprints of the derived metrics behind it

    @field_validator("id", "metric")
    @classmethod
    def _identifier(cls, text: str) -> str:
        if not is_id(text):
            raise ValueError(f"{text[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -")
        return text

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, version: object) -> object:
        """A version may be written as a number; True is none."""
        number = isinstance(version, int) and not isinstance(version, bool)
        text = str(version) if number else version
        if text == "":
            raise ValueError("must not be empty")
        return text

    @field_validator("devices")
    @classmethod
    def _globs(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            if len(glob) > 128 or _GLOB.fullmatch(glob) is None:
                raise ValueError(f"bad glob {glob[:80]!r}: letters, digits, . _ - and * ? [abc] [!abc] only")
        return globs

    @field_validator("valid_to")
    @classmethod
    def _after(cls, valid_to: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("valid_from")
        if valid_to is not None and start is not None and valid_to < start:
            raise ValueError(f"{valid_to} is before valid_from {start}")
        return valid_to

    @field_validator("template_zh", "template_en")
    @classmethod
    def _template(cls, template: str) -> str:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"bad template: {error}") from None
        for _, name, form, conversion in parts:
            if name is not None and name not in PLACEHOLDERS:
                raise ValueError(f"unknown placeholder {{{name}}} (known: {', '.join(sorted(PLACEHOLDERS))})")
            if form or conversion:
                raise ValueError(f"{{{name}}} takes no format or conversion")
        return template

    @cached_property
    def _device_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(fnmatch.translate(glob) for glob in self.devices))

    def selects(self, device: str, metric: str) -> bool:
        """Whether this rule watches that series."""
        return metric == self.metric and self._device_pattern.match(device) is not None

    def resting_on(self, derived: Mapping[str, str]) -> Self:
        """The same rule as it decides with these derived metrics (fingerprints by name), if it names any of them: its own
        `fingerprint` and `digest` then change with theirs."""
        named = names_in(self)
        found = tuple(derived[name] for name in sorted(named & derived.keys()))
        if found == self._rests_on:
            return self
        rule = self.model_copy()
        rule._rests_on = found
        for known in ("fingerprint", "digest"):
            rule.__dict__.pop(known, None)
        return rule

    @cached_property
    def fingerprint(self) -> str:
        """Names everything a kept state depends on: id, version, kind, metric, the kind's own fields, and what
        the derived metrics behind it are computed by.

        Titles, guidance, sources, mode and the device globs may change without losing what is pending or open.
        """
        own = type(self).model_fields.keys() - Rule.model_fields.keys()
        if self.when:
            own |= _CONDITIONS
        own -= {name for name in _ADDED if getattr(self, name, None) is None}
        facts = self.model_dump(include={"id", "version", "kind", "metric", *own})
        facts |= {"rests_on": self._rests_on} if self._rests_on else {}
        return blake2b(msgspec.json.encode(facts, order="deterministic"), digest_size=16).hexdigest()

    @cached_property
    def digest(self) -> str:
        """Names the whole rule as it is written: what somebody decides to arm. `mode` is left out, so that a decision made
        for a rule in shadow, and its score, are of the same text."""
        silent = {name for name in ("contacts", "override", *_ADDED) if not getattr(self, name, None)}
        facts = self.model_dump(mode="json", exclude={"mode", *silent, *(() if self.when else _CONDITIONS)})
        facts |= {"rests_on": self._rests_on} if self._rests_on else {}
        return blake2b(msgspec.json.encode(facts, order="deterministic"), digest_size=16).hexdigest()


def names_in(model: BaseModel) -> set[str]:
    """Every text of a rule or derived metric that may be the name of a metric."""
    return {text.rpartition("/")[2] for text in _texts(model.model_dump(mode="json"))}


def _texts(value: object) -> Iterator[str]:
    """Every text in JSON-like data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
