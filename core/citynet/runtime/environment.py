"""Settings from environment variables: ``PREFIX_FIELD``, inner tables by ``__``, lists and whole tables as JSON.

Names are found whatever their case. pydantic-settings does the same and more, for more memory than a gateway has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_STRUCTURES = (list, dict, tuple, set, frozenset)


def read(model: type[BaseModel], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """What the environment says of `model`, as input of its validation; and what of it is no JSON, one line each."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    variables = {key.lower(): (key, text) for key, text in os.environ.items() if key.lower().startswith(prefix.lower())}
    # The shorter name first: a whole table as JSON, then single keys of it.
    for lowered in sorted(variables):
        key, text = variables[lowered]
        path = lowered.removeprefix(prefix.lower()).split("__")
        field = model.model_fields.get(path[0])
        if field is None or (len(path) > 1 and not _is_structure(field)):
            continue  # told by whoever knows every table
        try:
            value = _value(_inner(field, path[1:]), text)
        except ValueError as error:
            problems.append(f"environment {key}: not JSON: {error} (got {text[:60]!r})")
            continue
        if len(path) == 1 and value is None:
            continue  # JSON's null says nothing
        if len(path) > 1 and not isinstance(found.get(path[0], {}), dict):
            continue  # the whole is no table, which validation will say
        for part in reversed(path):
            value = {part: value}
        found = merge(found, value)
    return found, problems


def merge(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables over each other, the last one on top; inner tables are merged, everything else is replaced."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _value(field: FieldInfo | None, text: str) -> Any:
    """The variable's text, decoded where the field is a table or a list. ValueError if that is no JSON."""
    if field is None or not _is_structure(field):
        return text
    try:
        return json.loads(text)
    except ValueError:
        if NoneType in get_args(field.annotation):
            return text  # may be absent, so the model says best what it should have been
        raise


def _inner(field: FieldInfo | None, path: list[str]) -> FieldInfo | None:
    """The field of an inner table that `path` leads to; None if there is none (validation will say so)."""
    for part in path:
        inner = next((item for item in _candidates(field) if issubclass(item, BaseModel)), None) if field else None
        field = inner.model_fields.get(part) if inner is not None else None
    return field


def _is_structure(field: FieldInfo) -> bool:
    return any(issubclass(item, (BaseModel, *_STRUCTURES)) for item in _candidates(field))


def _candidates(field: FieldInfo) -> list[type]:
    """The classes a field may have: its own, or those of its union."""
    options = (
        [field.annotation]
        if get_origin(field.annotation) in _STRUCTURES
        else [field.annotation, *get_args(field.annotation)]
    )
    plain = [get_origin(option) or option for option in options]
    return [item for item in plain if isinstance(item, type)]
