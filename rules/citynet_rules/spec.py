"""Rule files (TOML or YAML) to a checked, frozen `RuleSet`; every mistake of every file is reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_rules.condition import check_zone
from citynet_rules.derived import Derived, closures, in_order
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.witness import NEIGHBOURS_MAX
from citynet_rules.rule import Rule
from citynet_rules.rulefile import SUFFIXES, Key, RuleFile, RuleFileError, read

RULES_MAX = 10_000
DERIVED_MAX = 1000
TABLE = "rule"
DERIVED = "derived"
ZONE = "time_zone"
NEAR = "neighbours"
Near = Mapping[str, Mapping[str, tuple[str, ...]]]
Problem = tuple[int, str, str]  # line, rule-id.field, what is wrong
_LIBRARY = Path(__file__).with_name("library")


@dataclass(frozen=True)
class RuleSet:
    """Checked rules in file order, ids unique. `origins` tells for each id where it stands: ``file:line``.
    `neighbours` are the devices beside each device, by metric: witnesses of kind `witness`."""

    rules: tuple[Rule, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    derived: tuple[Derived, ...] = ()
    neighbours: Near = field(default_factory=dict)

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
    loaded = _Loaded()
    for path in paths:
        try:
            source = read(path)
        except RuleFileError as error:
            problems.append(f"{path}:{error.line}: {error}" if error.line else f"{path}: {error}")
            continue
        found = _strangers(source) + loaded.read(source)
        problems += [f"{path}:{line}: {where}: {text}" for line, where, text in sorted(found)]
    if len(loaded.rules) > RULES_MAX:
        problems.append(f"{len(loaded.rules)} rules, at most {RULES_MAX}")
    if len(loaded.derived) > DERIVED_MAX:
        problems.append(f"{len(loaded.derived)} derived metrics, at most {DERIVED_MAX}")
    problems += loaded.relations()
    if problems:
        raise ConfigError(problems)
    return _rested(RuleSet(tuple(loaded.rules), loaded.origins, tuple(loaded.derived), loaded.near))


def _rested(rules: RuleSet) -> RuleSet:
    """Rules that know what the derived metrics they name are computed by."""
    behind = closures(in_order(rules.derived)[0])
    return dataclasses.replace(rules, rules=tuple(rule.resting_on(behind) for rule in rules)) if behind else rules


class _Loaded:
    """What was read so far; `origins` by rule id, `places` by name of a derived metric."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.derived: list[Derived] = []
        self.origins: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.near: dict[str, dict[str, tuple[str, ...]]] = {}

    def read(self, source: RuleFile) -> list[Problem]:
        """Take the tables of a file; what is wrong in them."""
        found: list[Problem] = []
        zone = source.data.get(ZONE)
        if zone is not None:
            found += _zone(source, zone)
            zone = "UTC" if found else zone  # one line is enough
        for number, table in enumerate(_tables(source, DERIVED)):
            derived, wrong = _derived(source, number, table)
            found += wrong + _claim(source, (DERIVED, number, "name"), table, self.places)
            if derived is not None:
                self.derived.append(derived)
        for number, table in enumerate(_tables(source, TABLE)):
            rule, wrong = _rule(source, number, _with_zone(table, zone))
            found += wrong + _claim(source, (TABLE, number, "id"), table, self.origins)
            if rule is not None:
                self.rules.append(rule)
        return found + self._neighbours(source)

    def _neighbours(self, source: RuleFile) -> list[Problem]:
        """Take the tables ``[neighbours.METRIC]``: device = list of devices."""
        tables = source.data.get(NEAR, {})
        if not isinstance(tables, dict):
            return [(source.line((NEAR,)), NEAR, f"tables [{NEAR}.METRIC] were expected")]
        found: list[Problem] = []
        for metric, table in tables.items():
            of = self.near.setdefault(str(metric), {})
            for device, others in table.items() if isinstance(table, dict) else [("", table)]:
                wrong = "is told twice" if device in of else _not_near(metric, device, others)
                if wrong:
                    found.append((source.line((NEAR, metric, device)), f"{NEAR}.{metric}.{device}"[:200], wrong))
                else:
                    of[str(device)] = tuple(others)
        return found

    def relations(self) -> list[str]:
        """What is wrong between tables: cycles, units that differ."""
        ordered, cycles = in_order(self.derived)
        found = [f"{self.places[path[0]]}: {path[0]}.operands: cycle: {' -> '.join(path)}" for path in cycles]
        units = {each.name: each.unit for each in self.derived}
        for each in self.derived:
            for name, operand in each.operands.items():
                if units.get(operand.metric, operand.unit) != operand.unit:
                    where = f"{self.places[each.name]}: {each.name}.operands.{name}.unit"
                    found.append(f"{where}: {operand.unit!r}, but {operand.metric} is in {units[operand.metric]!r}")
        for rule in self.rules:
            if getattr(rule, "clock", "") == "server" and (rule.when or rule.metric in units):
                reason = "what waits for other series has no clock but their watermarks: only source is possible here"
                found.append(f"{self.origins[rule.id]}: {rule.id}.clock: {reason}")
            if units.get(rule.metric, rule.unit) != rule.unit:
                where = f"{self.origins[rule.id]}: {rule.id}.unit"
                found.append(f"{where}: {rule.unit!r}, but {rule.metric} is in {units[rule.metric]!r}")
        self.derived = ordered
        return found


def _not_near(metric: object, device: object, others: object) -> str | None:
    """What is wrong with a device's neighbours."""
    if not isinstance(others, list) or not 1 <= len(others) <= NEIGHBOURS_MAX:
        return f"a list of 1 to {NEIGHBOURS_MAX} devices was expected"
    for name in (metric, device, *others):
        if not isinstance(name, str) or not is_id(name):
            return f"{str(name)[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -"
    if device in others or len(set(others)) < len(others):
        return "a device stands twice, or beside itself"
    return None


def _tables(source: RuleFile, name: str) -> list[Any]:
    tables = source.data.get(name, [])
    return tables if isinstance(tables, list) else []


def replaced(rules: RuleSet, over: RuleSet) -> RuleSet:
    """`rules` with those of `over` in place of the ones with the same id, and the others of `over` after them; derived
    metrics by name likewise."""
    new = {rule.id: rule for rule in over}
    kept = tuple(new.pop(rule.id, rule) for rule in rules)
    derived = {each.name: each for each in (*rules.derived, *over.derived)}
    origins, near = {**rules.origins, **over.origins}, {**rules.neighbours, **over.neighbours}
    return _rested(RuleSet(kept + tuple(new.values()), origins, tuple(derived.values()), near))


def _strangers(source: RuleFile) -> list[Problem]:
    """What a rule file must not hold beside its tables, keys that stand twice, and a file without any table."""
    found = [
        (
            source.line((name,)),
            str(name),
            f"unknown key (a rule file holds [[{TABLE}]], [[{DERIVED}]] and [{NEAR}.METRIC] tables and {ZONE})",
        )
        for name in source.data
        if name not in {TABLE, DERIVED, ZONE, NEAR}
    ]
    found += [(source.line(key), _owner(source.data, key), "stands twice") for key in source.doubles]
    if DERIVED in source.data and not isinstance(source.data[DERIVED], list):
        found.append((source.line((DERIVED,)), DERIVED, f"[[{DERIVED}]] tables were expected"))
    if not _tables(source, TABLE) and not _tables(source, DERIVED) and NEAR not in source.data:
        found.append((source.line((TABLE,)), TABLE, f"at least one [[{TABLE}]] was expected"))
    return found


def _zone(source: RuleFile, zone: object) -> list[Problem]:
    try:
        check_zone(str(zone))
    except ValueError as error:
        return [(source.line((ZONE,)), ZONE, str(error))]
    return []


def _with_zone(table: object, zone: object) -> object:
    """A rule whose schedules have the file's time zone where they name none."""
    when = table.get("when") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(when, list) or not isinstance(zone, str):
        return table
    schedule = {"days", "hours", "dates"}
    filled = [{ZONE: zone, **each} if isinstance(each, dict) and each.keys() & schedule else each for each in when]
    return {**table, "when": filled}


def _owner(data: Mapping[str, Any], key: Key) -> str:
    """`key` as ``rule-id.field`` where it belongs to a rule."""
    if len(key) > 2 and key[0] == TABLE and isinstance(key[1], int):
        return ".".join([_name(data[TABLE][key[1]], key[1]), *map(str, key[2:])])
    return ".".join(map(str, key))


def _name(table: object, number: int) -> str:
    ident = table.get("id") if isinstance(table, dict) else None
    return ident[:64] if isinstance(ident, str) and ident else f"{TABLE}[{number}]"


def _claim(source: RuleFile, key: Key, table: object, origins: dict[str, str]) -> list[Problem]:
    """Note whose id or name this is; a second owner is a problem."""
    field_name = str(key[-1])
    ident = table.get(field_name) if isinstance(table, dict) else None
    if not isinstance(ident, str):
        return []
    line = source.line(key)
    if ident in origins:
        what = "rule" if key[0] == TABLE else "derived metric"
        return [(line, f"{ident[:64]}.{field_name}", f"is already the {field_name} of the {what} at {origins[ident]}")]
    origins[ident] = f"{source.path}:{line}"
    return []


def _derived(source: RuleFile, number: int, table: object) -> tuple[Derived | None, list[Problem]]:
    """One derived metric, or what is wrong with it."""
    name = table.get("name") if isinstance(table, dict) else None
    name = name[:64] if isinstance(name, str) and name else f"{DERIVED}[{number}]"
    if not isinstance(table, dict):
        return None, [(source.line((DERIVED, number)), name, "a table was expected")]
    try:
        return Derived.model_validate(_text_keys(table)), []
    except ValidationError as error:
        key = (DERIVED, number)
        return None, [_problem(source, key, name, dict(item)) for item in error.errors(include_url=False)]


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
            _problem(source, (TABLE, number), name, dict(item))
            for item in error.errors(include_url=False)
            if kind or item["type"] != "extra_forbidden"  # without a kind nobody knows which keys it would have
        ]
        return None, problems
    return (rule if kind else None), problems


def _text_keys(table: Mapping[Any, Any]) -> dict[str, Any]:
    """YAML allows keys that are no text; as text they are reported as unknown."""
    return {str(key): value for key, value in table.items()}


def _problem(source: RuleFile, table: Key, name: str, item: Mapping[str, Any]) -> Problem:
    location = [part for part in item["loc"] if part != "[key]"]
    line = source.line((*table, *location))
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
