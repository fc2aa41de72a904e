"""The settings as data: what each one is called, means and may be. The sample file and ``config show`` come from here.

Nothing is written down twice: names, defaults, bounds and descriptions are read off the models, so the reference cannot
drift from what the processes accept.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from citynet.runtime.settings import DEFAULT_FILE, Table, known_tables

_WIDTH = 110
_BOUNDS = (("ge", "at least {}"), ("gt", "above {}"), ("le", "at most {}"), ("lt", "below {}"))
_LENGTHS = (("min_length", "length at least {}"), ("max_length", "length at most {}"))
_DSN_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*(@)|(password\s*=\s*)('[^']*'|\S+)")
# Not settings: they speak to the tests and to the fault injection only.
_OTHER_VARIABLES = frozenset({"CITYNET_FAILPOINT"})
_OTHER_PREFIX = "CITYNET_TEST_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its `path` begins with the table's name; `value` is the default or, in `effective`, what holds."""

    path: tuple[str, ...]
    kind: str
    bounds: str
    about: str
    value: object

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        table, field, *inner = self.path
        return "__".join([f"CITYNET_{table}_{field}", *inner]).upper()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: ``default``, ``file`` or ``environment``, and which file or variable."""

    kind: str
    where: str = ""


def models() -> tuple[dict[str, type[Table]], dict[str, str]]:
    """The models of all known tables by name; and for those whose role is not installed, the module that is missing."""
    found: dict[str, type[Table]] = {}
    missing: dict[str, str] = {}
    for name, place in sorted(known_tables().items()):
        module, _, attribute = place.partition(":")
        try:
            found[name] = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            missing[name] = error.name or module
    return found, missing


def defaults(table: str, model: type[Table]) -> list[Setting]:
    """Every setting of a table with its default, the nested ones after their parent."""
    return list(_walk((table,), model, None))


def effective(table: str, values: Table) -> list[Setting]:
    """Every setting of a table with the value that holds; passwords inside a connection string are blanked out."""
    return list(_walk((table,), type(values), values))


def origin(setting: Setting, data: Mapping[str, Any], path: Path | None) -> Origin:
    """Where the value of a setting comes from, given the settings file's `data`: environment over file over default."""
    table, field, *inner = setting.path
    for depth in range(len(inner), -1, -1):
        variable = "__".join([f"CITYNET_{table}_{field}", *inner[:depth]]).upper()
        if variable in os.environ and (depth == len(inner) or _within(os.environ[variable], inner[depth:])):
            return Origin("environment", variable)
    here: object = data
    for part in setting.path:
        if not isinstance(here, Mapping) or part not in here:
            return Origin("default")
        here = here[part]
    return Origin("file", str(path or DEFAULT_FILE))


def unknown_variables(tables: Mapping[str, str]) -> list[str]:
    """Environment variables that look like settings and belong to no table, one line each."""
    prefixes = tuple(f"CITYNET_{name.upper()}_" for name in tables)
    return [
        f"environment {key}: unknown setting"
        for key in sorted(os.environ)
        if key.startswith("CITYNET_") and not key.startswith((*prefixes, _OTHER_PREFIX)) and key not in _OTHER_VARIABLES
    ]


def sample(tables: Mapping[str, type[Table]]) -> str:
    """A commented settings file: prose after ``# ``, settings and inner tables after ``#``, all at their defaults."""
    parts = [_HEAD, *(_sample_table(name, model) for name, model in tables.items())]
    return "\n\n\n".join(part.rstrip() for part in parts) + "\n"


_HEAD = f"""\
# Settings of citynet, every one at its default. Remove the `#` in front of a line to change it.
#
# The file is looked for as ./{DEFAULT_FILE}, or where --config says. The environment goes over the file, command-line
# options go over both. [gateway] id is the variable CITYNET_GATEWAY_ID; an inner table adds two underscores:
# [gateway.uplink] host is CITYNET_GATEWAY_UPLINK__HOST. Lists in the environment are JSON. Unknown names are errors.
#
# Check: citynet config check     What holds, and why: citynet config show     This file: citynet config sample"""


def _sample_table(name: str, model: type[Table]) -> str:
    lines = [f"# {_first_line(model)}", f"[{name}]"]
    inner: tuple[str, ...] = (name,)
    settings = defaults(name, model)
    # In TOML a table's own keys stand before its inner tables.
    for setting in sorted(settings, key=lambda item: item.path[:-1] if len(item.path) > 2 else ()):
        if setting.path[:-1] != inner:
            inner = setting.path[:-1]
            lines += ["", *_prose(_about_inner(model, inner[1:])), f"#[{'.'.join(inner)}]"]
        facts = ", ".join(part for part in (setting.kind, setting.bounds) if part)
        lines += ["", *_prose(f"{setting.about} ({facts})")]
        lines.append(f"#{setting.path[-1]} = {_toml(setting.value)}")
    return "\n".join(lines)


def _prose(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _about_inner(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """What an inner table is for: the description of its field, else the first line of its model."""
    field = model.model_fields[path[0]]
    inner = _inner_model(field)
    if inner is None:
        return ""
    return _about_inner(inner, path[1:]) if len(path) > 1 else field.description or _first_line(inner)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]


def _walk(path: tuple[str, ...], model: type[BaseModel], values: BaseModel | None) -> Iterator[Setting]:
    for key, field in model.model_fields.items():
        value = _default(field) if values is None else getattr(values, key)
        inner = _inner_model(field)
        if inner is not None:
            yield from _walk((*path, key), inner, value if isinstance(value, BaseModel) else None)
        else:
            yield Setting((*path, key), _kind(field.annotation), _bounds(field), field.description or "", _shown(value))


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=True, validated_data={})


def _inner_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of an inner table. A list of tables is one value."""
    if get_origin(field.annotation) is list:
        return None
    candidates = [field.annotation, *get_args(field.annotation)]
    return next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None)


def _shown(value: object) -> object:
    if isinstance(value, str):
        return _DSN_PASSWORD.sub(lambda found: f"{found[1] or found[3]}***{found[2] or ''}", value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_shown(item) for item in value] if isinstance(value, list) else value


_KINDS: dict[object, str] = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}


def _kind(annotation: object) -> str:
    if get_origin(annotation) is list:
        item = get_args(annotation)[0]
        kinds = [item, *get_args(item), *(inner for part in get_args(item) for inner in get_args(part))]
        if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
            return "list of tables"
        return f"list of {_kind(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"table of {_kind(get_args(annotation)[1])} by name"
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    arguments = [item for item in get_args(annotation) if item is not NoneType]
    if NoneType in get_args(annotation) and len(arguments) == 1:
        return f"{_kind(arguments[0])}, unset by default"
    return _KINDS.get(annotation, str(annotation))


def _bounds(field: FieldInfo) -> str:
    found = []
    for attribute, words in (*_BOUNDS, *_LENGTHS):
        for item in field.metadata:
            limit = getattr(item, attribute, None)
            if limit is not None:
                found.append(words.format(limit))
    found += [f"matches {item.pattern}" for item in field.metadata if getattr(item, "pattern", None)]
    return ", ".join(found)


def _within(text: str, inner: list[str]) -> bool:
    """Whether a variable that holds a whole inner table as JSON sets this part of it."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return False
    for part in inner:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _toml(value: object) -> str:
    if value is None:
        return '"…"'
    return json.dumps(value, ensure_ascii=False)  # our values are spelt the same in JSON and TOML
