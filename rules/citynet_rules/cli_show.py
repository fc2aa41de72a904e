"""``citynet rules show``: what rules come to, every setting with its value and the place that it comes from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.errors import CitynetError
from citynet.runtime.command import EXIT_FAILURE, ConfigOption, JsonOption, command
from citynet.runtime.settings import load
from citynet_rules.cli_table import table
from citynet_rules.kinds import KINDS
from citynet_rules.override import OVERRIDE
from citynet_rules.rule import Rule
from citynet_rules.rulefile import SUFFIXES
from citynet_rules.spec import RuleSet, library_paths, load_rules, rule_files

TEXT_MAX = 60

WhatArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RULE|FILE]...",
        help="Rules by id, to see all their settings; rule files or folders instead of those that the settings name.",
        show_default=False,
    ),
]


@command
def show(what: WhatArgument = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the effective rules; of a rule that is named every setting, its value and where it comes from."""
    files = [Path(word) for word in what or () if Path(word).suffix in SUFFIXES or Path(word).is_dir()]
    names = [word for word in what or () if Path(word) not in files]
    chosen = rule_files(files) if files else armed_files(config)
    rules = load_rules(chosen) if chosen else RuleSet()
    missing = [name for name in names if name not in rules.places]
    if missing:
        for name in missing:
            print(f"error: there is no rule {name}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILURE)
    picked = [rule for rule in rules if not names or rule.id in names]
    if as_json:
        print(json.dumps([described(rule, rules) for rule in picked], ensure_ascii=False))
        return
    for name in names:
        if name in rules.off:
            print(f"{name} is switched off at {rules.off[name]}")
    if names:
        print("\n\n".join(_in_full(rule, rules) for rule in picked))
        return
    header = ("id", "version", "kind", "metric", "limits", "standard", "edition", "status")
    print(table([header, *(row(rule) for rule in picked)]))
    for name, place in rules.off.items():
        print(f"switched off: {name}, at {place}")


def armed_files(config: Path | None) -> list[Path]:
    """The rule files that the settings name, as a worker reads them; without the server's packages the shipped packs."""
    for point in entry_points(group="citynet.settings"):
        if point.name == "ingest":
            try:
                model = point.load()
            except ModuleNotFoundError:
                break
            settings = load(model, config)
            return [*(library_paths() if settings.shipped_rules else []), *settings.rules]
    if config is not None:
        raise CitynetError("--config needs the server's packages: pip install 'citynet[server]'")
    return library_paths()


def described(rule: Rule, rules: RuleSet) -> dict[str, Any]:
    """A rule with the values that hold when it is evaluated, defaults filled in, its origin, and that of each setting."""
    facts = {key: value for key, value in KINDS[rule.kind].facts(rule).items() if key != "unit"}
    values = {**rule.model_dump(mode="json"), **facts}
    places = {".".join(key): rules.places[rule.id].of(*key) for key, _ in _settings(values)}
    return {**values, "origin": rules.origins[rule.id], "places": places}


def _settings(values: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    """Settings one by one; levels by colour. Who overrode the rule is no setting of it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in values.items():
        if key == "levels" and isinstance(value, Mapping):
            found += [((key, str(colour)), level) for colour, level in value.items()]
        elif key != OVERRIDE:
            found.append(((key,), value))
    return found


def _in_full(rule: Rule, rules: RuleSet) -> str:
    facts = described(rule, rules)
    places: dict[str, str] = facts.pop("places")
    facts.pop("origin")
    rows: list[Sequence[str]] = [("setting", "value", "from")]
    rows += [(".".join(key), _short(value), places[".".join(key)]) for key, value in _settings(facts)]
    head = f"{rule.id}, {rules.origins[rule.id]}"
    if rule.override is not None:
        over = rule.override
        head += f"\noverridden by {over.author} on {over.date}: {over.reason}"
    return f"{head}\n{table(rows)}"


def _short(value: object) -> str:
    """A value for a column."""
    written = f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    text = value if isinstance(value, str) else written
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"


def row(rule: Rule) -> tuple[str, ...]:
    """One line of the table."""
    facts = KINDS[rule.kind].facts(rule)
    if "levels" in facts:
        sign = "≤" if facts.get("direction") == "low" else "≥"
        limits = ", ".join(f"{colour} {sign} {value:g}" for colour, value in facts["levels"].items())
        limits = f"{limits} {facts.get('unit', rule.unit)}"
    else:
        limits = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None and key != "unit")
    clause = f" {rule.clause}" if rule.clause else ""
    return rule.id, rule.version, rule.kind, rule.metric, limits, rule.standard + clause, rule.edition, rule.status
