"""Rule files (TOML or YAML) to a checked, frozen `RuleSet`; every mistake of every file is reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from citynet.errors import ConfigError
from citynet.ids import is_id
from citynet_rules.condition import check_zone
from citynet_rules.derived import Derived, closures, in_order
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.witness import NEIGHBOURS_MAX, WitnessRule
from citynet_rules.override import OVERRIDE, Head, Places, Written, head_of, overridden, unknown_rule
from citynet_rules.rule import Rule, names_in
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
class Broken:
    """A table that is no rule and no derived metric for its mistakes of form, as it is written: it may have others as well."""

    name: str
    kind: str  # TABLE or DERIVED
    table: Mapping[str, Any]
    source: RuleFile
    number: int

    def place(self, *key: str) -> str:
        """``file:line`` of a setting."""
        return f"{self.source.path}:{self.source.line((self.kind, self.number, *key))}"


@dataclass(frozen=True)
class RuleSet:
    """Checked rules in file order, ids unique. `origins` tells for each id where it stands: ``file:line``; `places` where
    each of its settings does; `off` by id where a city switched a rule off; `derived_origins` where derived metrics stand, by
    name. `neighbours` are the devices beside each device, by metric: witnesses of kind `witness`. `broken` is what else stands
    in files that have problems."""

    rules: tuple[Rule, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    derived: tuple[Derived, ...] = ()
    neighbours: Near = field(default_factory=dict)
    places: Mapping[str, Places] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)
    derived_origins: Mapping[str, str] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()

    def place(self, ident: str, *key: str) -> str:
        """``file:line`` of a rule's setting where an override changed it, else of the rule."""
        places = self.places.get(ident)
        if places is not None and places.over is not None and places.over.has(*key[:1]):
            return places.of(*key)
        return self.origins.get(ident, "")

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


def load_rules(paths: Sequence[Path], base: Sequence[Path] | None = None) -> RuleSet:
    """Load and check rule files.

    An override of a rule that stands in none of the files takes it, as it is written there, from those of `base` (default: the
    shipped packs), and the derived metrics that it names with it.

    Raises:
        ConfigError: with all problems of all files, each ``file:line: rule-id.field: message``.
    """
    rules, problems = read_rules(paths, base)
    if problems:
        raise ConfigError(problems)
    return rules


def read_rules(paths: Sequence[Path], base: Sequence[Path] | None = None) -> tuple[RuleSet, list[str]]:
    """As `load_rules`: the rules without mistakes, and all problems of the others."""
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
    problems += loaded.override(paths, base)
    problems += loaded.relations()
    rules = RuleSet(
        tuple(loaded.rules), loaded.origins, tuple(loaded.derived), loaded.near, loaded.rule_places, loaded.off,
        loaded.places, tuple(loaded.broken),
    )  # fmt: skip
    return _rested(rules), problems


def _rested(rules: RuleSet) -> RuleSet:
    """Rules that know what the derived metrics they name are computed by."""
    behind = closures(in_order(rules.derived)[0])
    return dataclasses.replace(rules, rules=tuple(rule.resting_on(behind) for rule in rules)) if behind else rules


class _Loaded:
    """What was read so far; `origins` and `rule_places` by rule id, `places` by name of a derived metric."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.derived: list[Derived] = []
        self.origins: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.near: dict[str, dict[str, tuple[str, ...]]] = {}
        self.rule_places: dict[str, Places] = {}
        self.overrides: list[Written] = []
        self.off: dict[str, str] = {}
        self.broken: list[Broken] = []

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
            elif isinstance(table, Mapping):
                self.broken.append(Broken(_name(table, number, DERIVED), DERIVED, _text_keys(table), source, number))
        for number, table in enumerate(_tables(source, TABLE)):
            found += self._take_rule(source, number, table, zone)
        for number, table in enumerate(_tables(source, OVERRIDE)):
            zoned = _with_zone(table, zone)
            if isinstance(zoned, Mapping):
                self.overrides.append(Written(source, OVERRIDE, number, _text_keys(zoned)))
            else:
                found.append((source.line((OVERRIDE, number)), f"{OVERRIDE}[{number}]", "a table was expected"))
        return found + self._neighbours(source)

    def _take_rule(self, source: RuleFile, number: int, table: object, zone: object) -> list[Problem]:
        zoned = _with_zone(table, zone)
        rule, wrong = _rule(source, number, zoned)
        claimed = _claim(source, (TABLE, number, "id"), table, self.origins)
        if rule is not None and isinstance(zoned, Mapping):
            self.rules.append(rule)
            if not claimed:
                self.rule_places[rule.id] = Places(Written(source, TABLE, number, _text_keys(zoned)))
        elif isinstance(table, Mapping):
            self.broken.append(Broken(_name(table, number), TABLE, _text_keys(table), source, number))
        return wrong + claimed

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

    def override(self, paths: Sequence[Path], base: Sequence[Path] | None) -> list[str]:
        """Change rules as the overrides say; what is wrong with those."""
        if not self.overrides:
            return []
        read_already = {path.resolve() for path in paths}
        below = _Loaded()
        for path in library_paths() if base is None else base:
            if path.resolve() not in read_already:
                below.read(read(path))  # what is wrong there is told where that file is loaded
        found: list[str] = []
        taken: dict[str, Written] = {}
        for over in self.overrides:
            head, problems = head_of(over)
            if head is not None and head.rule in taken:
                told = f"is already overridden at {taken[head.rule].place()}"
                problems = [(over.line("rule"), f"{OVERRIDE} of {head.rule[:64]}", told)]
            elif head is not None:
                taken[head.rule] = over
                problems = self._put_over(over, head, below)
            found += [f"{over.source.path}:{line}: {where}: {text}" for line, where, text in sorted(problems)]
        return found

    def _put_over(self, over: Written, head: Head, below: _Loaded) -> list[Problem]:
        """Change one rule."""
        own = self.rule_places.get(head.rule)
        if own is None and head.rule in self.origins:
            return []  # the rule itself has mistakes, and they are told
        places = own or below.rule_places.get(head.rule)
        if places is None:
            return [unknown_rule(over, head.rule, [*self.rule_places, *below.rule_places])]
        home = self if own else below
        before = next(rule for rule in home.rules if rule.id == head.rule)
        rule, problems = overridden(before, places.rule, over, head)
        if rule is None:
            return problems
        if own is None:
            self.rules.append(rule)
            self.origins[rule.id] = below.origins[rule.id]
            self._take_derived(rule, below)
        else:
            self.rules[self.rules.index(before)] = rule
        self.rule_places[rule.id] = Places(places.rule, over)
        if not head.armed:
            self.off[rule.id] = over.place("armed")
            self.rules.remove(rule)
        return []

    def _take_derived(self, rule: Rule, below: _Loaded) -> None:
        """The derived metrics that a rule from elsewhere names, and those behind them."""
        wanted, missing = names_in(rule), {each.name: each for each in below.derived if each.name not in self.places}
        while found := wanted & missing.keys():
            for name in sorted(found):
                self.derived.append(missing.pop(name))
                self.places[name] = below.places[name]
                wanted |= names_in(self.derived[-1])

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
            if isinstance(rule, WitnessRule):
                found += self._unheard(rule, units.keys())
            if units.get(rule.metric, rule.unit) != rule.unit:
                where = f"{self.origins[rule.id]}: {rule.id}.unit"
                found.append(f"{where}: {rule.unit!r}, but {rule.metric} is in {units[rule.metric]!r}")
        self.derived = ordered
        return found

    def _unheard(self, rule: WitnessRule, derived: Container[str]) -> list[str]:
        """A witness rule is about what is read; on a derived metric it would never speak."""
        named = [("metric", rule.metric), *((f"beside.{n}.metric", each.metric) for n, each in enumerate(rule.beside))]
        reason = "is a derived metric: witnesses are read, not made, and it would never speak"
        return [f"{self.origins[rule.id]}: {rule.id}.{key}: {name} {reason}" for key, name in named if name in derived]


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
    kept = tuple(rule for rule in kept if rule.id not in over.off)
    derived = {each.name: each for each in (*rules.derived, *over.derived)}
    off = {ident: place for ident, place in rules.off.items() if ident not in over.origins}
    return _rested(
        RuleSet(
            kept + tuple(new.values()),
            {**rules.origins, **over.origins},
            tuple(derived.values()),
            {**rules.neighbours, **over.neighbours},
            {**rules.places, **over.places},
            {**off, **over.off},
            {**rules.derived_origins, **over.derived_origins},
        )
    )


def _strangers(source: RuleFile) -> list[Problem]:
    """What a rule file must not hold beside its tables, keys that stand twice, and a file without any table."""
    found = [
        (
            source.line((name,)),
            str(name),
            f"unknown key (a rule file holds [[{TABLE}]], [[{DERIVED}]], [[{OVERRIDE}]] and [{NEAR}.METRIC] tables and {ZONE})",
        )
        for name in source.data
        if name not in {TABLE, DERIVED, OVERRIDE, ZONE, NEAR}
    ]
    found += [(source.line(key), _owner(source.data, key), "stands twice") for key in source.doubles]
    found += [
        (source.line((name,)), name, f"[[{name}]] tables were expected")
        for name in (DERIVED, OVERRIDE)
        if name in source.data and not isinstance(source.data[name], list)
    ]
    if not any(_tables(source, name) for name in (TABLE, DERIVED, OVERRIDE)) and NEAR not in source.data:
        found.append((source.line((TABLE,)), TABLE, f"at least one [[{TABLE}]] was expected"))
    return found


def _zone(source: RuleFile, zone: object) -> list[Problem]:
    try:
        check_zone(str(zone))
    except ValueError as error:
        return [(source.line((ZONE,)), ZONE, str(error))]
    return []


def _with_zone(table: object, zone: object) -> object:
    """A rule that has the file's time zone where it or a schedule of it names none."""
    if isinstance(table, dict) and isinstance(zone, str) and ZONE not in table and _takes_zone(table.get("kind")):
        table = {**table, ZONE: zone}
    when = table.get("when") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(when, list) or not isinstance(zone, str):
        return table
    schedule = {"days", "hours", "dates"}
    filled = [{ZONE: zone, **each} if isinstance(each, dict) and each.keys() & schedule else each for each in when]
    return {**table, "when": filled}


def _takes_zone(word: object) -> bool:
    kind = KINDS.get(word) if isinstance(word, str) else None
    return kind is not None and ZONE in kind.model.model_fields


def _owner(data: Mapping[str, Any], key: Key) -> str:
    """`key` as ``rule-id.field`` where it belongs to a rule."""
    if len(key) > 2 and key[0] == TABLE and isinstance(key[1], int):
        return ".".join([_name(data[TABLE][key[1]], key[1]), *map(str, key[2:])])
    return ".".join(map(str, key))


def _name(table: object, number: int, kind: str = TABLE) -> str:
    ident = table.get("id" if kind == TABLE else "name") if isinstance(table, dict) else None
    return ident[:64] if isinstance(ident, str) and ident else f"{kind}[{number}]"


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
    name = _name(table, number, DERIVED)
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
    if OVERRIDE in table:
        problems.append((source.line((TABLE, number, OVERRIDE)), f"{name}.{OVERRIDE}", "unknown key"))
        table = {key: value for key, value in table.items() if key != OVERRIDE}
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
    return (rule if kind and not problems else None), problems


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
