"""``citynet rules``: check rule files, show what they come to; the others are in modules of their own."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from citynet.runtime.command import EXIT_FAILURE, JsonOption, command
from citynet_rules.cli_arm import arm, list_armed
from citynet_rules.cli_exam import exam
from citynet_rules.cli_golden import golden
from citynet_rules.cli_neighbours import neighbours
from citynet_rules.cli_replay import replay
from citynet_rules.cli_score import score
from citynet_rules.cli_show import show
from citynet_rules.lint import lint
from citynet_rules.spec import RuleSet, read_rules, rule_files

app = typer.Typer(help="Check and show alert rules; replay, score and arm them.", no_args_is_help=True)
app.command()(score)
app.command()(replay)
app.command()(arm)
app.command()(neighbours)
app.command("list")(list_armed)
app.command("test")(golden)
app.command()(show)
app.command()(exam)

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
    rules, problems = read_rules(files)
    warnings: list[str] = []
    for finding in lint(rules, datetime.now(UTC).date()):
        (problems if finding.severity == "error" else warnings).append(str(finding))
    ok = not problems and not (strict and warnings)
    if as_json:
        answer = {"ok": ok, "files": [str(f) for f in files], "problems": problems, "warnings": warnings}
        changed = [rule.id for rule in rules if rule.override]
        more = {"rules": len(rules), "overridden": changed, "off": sorted(rules.off)}
        print(json.dumps(answer | (more if ok else {}), ensure_ascii=False))
    else:
        for line in (*problems, *warnings):
            print(line, file=sys.stderr)
        if ok:
            told = f"{len(warnings)} warnings" if warnings else "no problems"
            print(f"{len(rules)} rules in {len(files)} files, {told}")
            _tell_overrides(rules)
    if not ok:
        raise typer.Exit(EXIT_FAILURE)


def _tell_overrides(rules: RuleSet) -> None:
    changed = sum(rule.override is not None for rule in rules)
    if changed or rules.off:
        print(f"{changed} of them overridden, {len(rules.off)} switched off")
