"""TOML from a parsed one: what `tomllib` gave, written back. Values only; comments and order of tables are not kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, time
from typing import Any


def dump(data: Mapping[str, Any]) -> str:
    """A document with the tables of `data`; every value below a table is written in line."""
    lines = [f"{_key(name)} = {value(item)}" for name, item in data.items() if not isinstance(item, Mapping)]
    for name, table in data.items():
        if isinstance(table, Mapping):
            lines += [f"[{_key(name)}]", *(f"{_key(key)} = {value(item)}" for key, item in table.items())]
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    return text if text and text.replace("_", "a").replace("-", "a").isalnum() and text.isascii() else _text(text)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for surrogate pairs, which it does not have: so no \\u beyond what must be escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def value(item: Any) -> str:
    """One value in line."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, str):
        return _text(item)
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {value(inner)}" for key, inner in item.items()) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(value(inner) for inner in item) + "]"
    if isinstance(item, date | time):
        return item.isoformat()
    return repr(item)  # integers, and floats, whose inf and nan are TOML's as well
