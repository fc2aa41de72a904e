"""``citynet rules``: check rule files, show what they come to; the others are in modules of their own."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.errors import ConfigError
from citynet.runtime.command import EXIT_FAILURE, JsonOption, command
from citynet_rules.cli_arm import arm, list_armed
from citynet_rules.cli_golden import golden
from citynet_rules.cli_neighbours import neighbours
from citynet_rules.cli_replay import replay
from citynet_rules.cli_score import score
from citynet_rules.cli_table import table
from citynet_rules.kinds import KINDS
from citynet_rules.lint import lint
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet, load_rules, rule_files

app = typer.Typer(help="Check and show alert rules; replay, score and arm them.", no_args_is_help=True)
app.command()(score)
app.command()(replay)
app.command()(arm)
app.command()(neighbours)
app.command("list")(list_armed)
app.command("test")(golden)

PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Rule files or folders of them (default: the shipped library).", show_default=False),
]


@app.command()
@command
def check(
    paths: PathsArgument = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check rule files; print every problem and warning with file and line. Exit 1 if there is a problem."""
    files = rule_files(paths)
    rules = RuleSet()
    problems: list[str] = []
    warnings: list[str] = []
    try:
        rules = load_rules(files)
    except ConfigError as error:
        problems = list(error.problems)
    for finding in lint(rules, datetime.now(UTC).date()):
        (problems if finding.severity == "error" else warnings).append(str(finding))
    ok = not problems and not (strict and warnings)
    if as_json:
        answer = {"ok": ok, "files": [str(f) for f in files], "problems": problems, "warnings": warnings}
        print(json.dumps(answer | ({"rules": len(rules)} if ok else {}), ensure_ascii=False))
    else:
        for line in (*problems, *warnings):
            print(line, file=sys.stderr)
        if ok:
            told = f"{len(warnings)} warnings" if warnings else "no problems"
            print(f"{len(rules)} rules in {len(files)} files, {told}")
    if not ok:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
@command
def show(paths: PathsArgument = None, as_json: JsonOption = False) -> None:
    """Show the effective rules with their standard, edition, status, and where each one stands."""
    rules = load_rules(rule_files(paths))
    if as_json:
        print(json.dumps([described(rule, rules) for rule in rules], ensure_ascii=False))
        return
    header = ("id", "version", "kind", "metric", "limits", "standard", "edition", "status")
    print(table([header, *(row(rule) for rule in rules)]))


def described(rule: Rule, rules: RuleSet) -> dict[str, Any]:
    """A rule with the values that hold when it is evaluated, defaults filled in, and its origin."""
    facts = {key: value for key, value in KINDS[rule.kind].facts(rule).items() if key != "unit"}
    return {**rule.model_dump(mode="json"), **facts, "origin": rules.origins[rule.id]}


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
