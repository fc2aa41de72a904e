"""Rule files (TOML or YAML) to a checked, frozen `RuleSet`; every mistake of every file is reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from citynet.errors import ConfigError
from citynet_rules.kinds import KINDS
from citynet_rules.rule import Rule
from citynet_rules.rulefile import SUFFIXES, Key, RuleFile, RuleFileError, read

RULES_MAX = 10_000
TABLE = "rule"
Problem = tuple[int, str, str]  # line, rule-id.field, what is wrong
_LIBRARY = Path(__file__).with_name("library")


@dataclass(frozen=True)
class RuleSet:
    """Checked rules in file order, ids unique. `origins` tells for each id where it stands: ``file:line``."""

    rules: tuple[Rule, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)


def library_paths() -> list[Path]:
    """The shipped packs, one file a domain, in order of their names."""
    return sorted(_LIBRARY.glob("*.toml"))


def rule_files(paths: Sequence[Path] | None) -> list[Path]:
    """The files to read; a folder stands for the rule files directly in it, in order of their names."""
    if not paths:
        return library_paths()
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(inner for inner in path.iterdir() if inner.suffix in SUFFIXES)
            if not found:
                raise ConfigError([f"{path}: no rule files ({', '.join(SUFFIXES)}) in this folder"])
            files += found
        else:
            files.append(path)
    return files


def load_rules(paths: Sequence[Path]) -> RuleSet:
    """Load and check rule files.

    Raises:
        ConfigError: with all problems of all files, each ``file:line: rule-id.field: message``.
    """
    problems: list[str] = []
    rules: list[Rule] = []
    origins: dict[str, str] = {}
    for path in paths:
        try:
            source = read(path)
        except RuleFileError as error:
            problems.append(f"{path}:{error.line}: {error}" if error.line else f"{path}: {error}")
            continue
        found = _strangers(source)
        tables = source.data.get(TABLE, [])
        for number, table in enumerate(tables if isinstance(tables, list) else ()):
            rule, wrong = _rule(source, number, table)
            found += wrong + _claim(source, number, table, origins)
            if rule is not None:
                rules.append(rule)
        problems += [f"{path}:{line}: {where}: {text}" for line, where, text in sorted(found)]
    if len(rules) > RULES_MAX:
        problems.append(f"{len(rules)} rules, at most {RULES_MAX}")
    if problems:
        raise ConfigError(problems)
    return RuleSet(tuple(rules), origins)


def replaced(rules: RuleSet, over: RuleSet) -> RuleSet:
    """`rules` with those of `over` in place of the ones with the same id, and the others of `over` after them."""
    new = {rule.id: rule for rule in over}
    kept = tuple(new.pop(rule.id, rule) for rule in rules)
    return RuleSet(kept + tuple(new.values()), {**rules.origins, **over.origins})


def _strangers(source: RuleFile) -> list[Problem]:
    """What a rule file must not hold beside its rules, keys that stand twice, and a file without any rule."""
    found = [
        (source.line((name,)), str(name), f"unknown key (a rule file holds [[{TABLE}]] tables only)")
        for name in source.data
        if name != TABLE
    ]
    found += [(source.line(key), _owner(source.data, key), "stands twice") for key in source.doubles]
    tables = source.data.get(TABLE)
    if not isinstance(tables, list) or not tables:
        found.append((source.line((TABLE,)), TABLE, f"at least one [[{TABLE}]] was expected"))
    return found


def _owner(data: Mapping[str, Any], key: Key) -> str:
    """`key` as ``rule-id.field`` where it belongs to a rule."""
    if len(key) > 2 and key[0] == TABLE and isinstance(key[1], int):
        return ".".join([_name(data[TABLE][key[1]], key[1]), *map(str, key[2:])])
    return ".".join(map(str, key))


def _name(table: object, number: int) -> str:
    ident = table.get("id") if isinstance(table, dict) else None
    return ident[:64] if isinstance(ident, str) and ident else f"{TABLE}[{number}]"


def _claim(source: RuleFile, number: int, table: object, origins: dict[str, str]) -> list[Problem]:
    """Note whose id this is; a second owner is a problem."""
    ident = table.get("id") if isinstance(table, dict) else None
    if not isinstance(ident, str):
        return []
    line = source.line((TABLE, number, "id"))
    if ident in origins:
        return [(line, f"{ident[:64]}.id", f"is already the id of the rule at {origins[ident]}")]
    origins[ident] = f"{source.path}:{line}"
    return []


def _rule(source: RuleFile, number: int, table: object) -> tuple[Rule | None, list[Problem]]:
    """One rule, or what is wrong with it."""
    name = _name(table, number)
    if not isinstance(table, dict):
        return None, [(source.line((TABLE, number)), name, "a table was expected")]
    problems: list[Problem] = []
    word = table.get("kind")
    kind = KINDS.get(word) if isinstance(word, str) else None
    if kind is None and "kind" in table:
        line = source.line((TABLE, number, "kind"))
        problems.append((line, f"{name}.kind", f"unknown kind {word!r} (known: {', '.join(sorted(KINDS))})"))
    try:
        rule = (kind.model if kind else Rule).model_validate(_text_keys(table))
    except ValidationError as error:
        problems += [
            _problem(source, number, name, dict(item))
            for item in error.errors(include_url=False)
            if kind or item["type"] != "extra_forbidden"  # without a kind nobody knows which keys it would have
        ]
        return None, problems
    return (rule if kind else None), problems


def _text_keys(table: Mapping[Any, Any]) -> dict[str, Any]:
    """YAML allows keys that are no text; as text they are reported as unknown."""
    return {str(key): value for key, value in table.items()}


def _problem(source: RuleFile, number: int, name: str, item: Mapping[str, Any]) -> Problem:
    location = [part for part in item["loc"] if part != "[key]"]
    line = source.line((TABLE, number, *location))
    where = ".".join([name, *(str(part) for part in location)])
    kind = item["type"]
    if kind == "missing":
        message = "is missing"
    elif kind == "extra_forbidden":
        message = "unknown key"
    elif kind == "value_error":
        message = str(item["ctx"]["error"])
    else:
        text = str(item["msg"])
        message = f"{text[0].lower()}{text[1:]} (got {str(item['input'])[:60]!r})"
    return line, where, " ".join(message.split())
