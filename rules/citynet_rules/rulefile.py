"""Rule files as plain data with line numbers: TOML (``[[rule]]``) or YAML (a list under ``rule``).

The parsers give values, a small locator gives the line of every key, so that a mistake can be pointed at. Bounds: a
file has at most `BYTES_MAX` bytes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BYTES_MAX = 4 << 20
SUFFIXES = (".toml", ".yaml", ".yml")

Key = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[|\[)\s*([^\[\]]+?)\s*\]")
_ENTRY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=(.*)"""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_TOML_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$|\s*\(at end of document\)$")
_DEPTH_MAX = 6  # derived, its number, operands, one of them, its unit: nothing deeper exists in a rule file


class RuleFileError(Exception):
    """A file that cannot be read at all; `line` 0 when no line is to blame."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


@dataclass(frozen=True)
class RuleFile:
    """One parsed file: its tables, the line of each key, and keys that stand twice (YAML only; TOML refuses them
    itself)."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[Key, int]
    doubles: tuple[Key, ...] = ()

    def line(self, key: Key) -> int:
        """Line of `key`, or of the nearest table around it, or 1."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key[:-1]
        return 1


def read(path: Path) -> RuleFile:
    """Read and parse a rule file; the suffix decides the language.

    Raises:
        RuleFileError: unreadable, too large, of an unknown suffix, or not the language it claims to be.
    """
    if path.suffix not in SUFFIXES:
        raise RuleFileError(0, f"not a rule file: the name must end in {', '.join(SUFFIXES)}")
    try:
        size = path.stat().st_size
        if size > BYTES_MAX:
            raise RuleFileError(0, f"{size} bytes, at most {BYTES_MAX}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RuleFileError(0, error.strerror or type(error).__name__) from None
    except UnicodeDecodeError as error:
        raise RuleFileError(0, f"not UTF-8 at byte {error.start}") from None
    return _toml(path, text) if path.suffix == ".toml" else _yaml(path, text)


def _toml(path: Path, text: str) -> RuleFile:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines()) if found else 0
        raise RuleFileError(line, f"not TOML: {_TOML_LINE.sub('', str(error))}") from None
    return RuleFile(path, data, toml_lines(text))


def toml_lines(text: str) -> dict[Key, int]:
    """Line of every table header and key of a TOML text that is known to parse; entries of arrays of tables are
    numbered.

    Text inside multi-line strings is skipped; keys of inline tables have no line of their own.
    """
    lines: dict[Key, int] = {}
    count: dict[Key, int] = {}
    table: Key = ()
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if fence:
            fence = "" if fence in line else fence
            continue
        if header := _HEADER.match(line):
            names: Key = tuple(_parts(header[2]))
            table = _numbered(names, count)
            if header[1] == "[[":
                count[table] = count.get(table, 0) + 1
                table = (*table, count[table] - 1)
            lines.setdefault(table, number)
        elif entry := _ENTRY.match(line):
            key = (*table, *_parts(entry[1]))
            for depth in range(len(table) + 1, len(key) + 1):
                lines.setdefault(key[:depth], number)
            fence = _open_fence(entry[2])
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _numbered(names: Key, count: Mapping[Key, int]) -> Key:
    """``rule.levels`` below the third ``[[rule]]`` is (rule, 2, levels)."""
    table: Key = ()
    for position, name in enumerate(names):
        table = (*table, name)
        if table in count and position < len(names) - 1:
            table = (*table, count[table] - 1)
    return table


def _open_fence(rest: str) -> str:
    """The quotes that must close a multi-line string begun in `rest`, else an empty text."""
    opened = rest.strip()[:3]
    return opened if opened in ('"""', "'''") and opened not in rest.strip()[3:] else ""


def _yaml(path: Path, text: str) -> RuleFile:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RuleFileError(mark.line + 1 if mark else 0, f"not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RuleFileError(0, f"not YAML: {str(error).splitlines()[0]}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise RuleFileError(1, f"a table with the key rule was expected, found {type(data).__name__}")
    lines: dict[Key, int] = {}
    doubles: list[Key] = []
    if node is not None:
        _walk(node, (), lines, doubles)
    return RuleFile(path, data, lines, tuple(doubles))


def _walk(node: yaml.Node, key: Key, lines: dict[Key, int], doubles: list[Key]) -> None:
    if len(key) >= _DEPTH_MAX:
        return
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            if inner in lines:
                doubles.append(inner)
            lines[inner] = name.start_mark.line + 1
            _walk(value, inner, lines, doubles)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*key, number)] = item.start_mark.line + 1
            _walk(item, (*key, number), lines, doubles)
