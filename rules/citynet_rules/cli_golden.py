"""``citynet rules test``: run a folder of golden cases, show what differs, or write what came as expected."""

from __future__ import annotations

import json
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer

from citynet.runtime.command import EXIT_FAILURE, JsonOption, command
from citynet_rules.cli_csv import writing
from citynet_rules.golden import Outcome, cases, expected_path, run
from citynet_rules.rulefile import SUFFIXES
from citynet_rules.spec import library_paths, load_rules


@command
def golden(
    folder: Annotated[Path, typer.Argument(help="Folder with cases RULE.csv, RULE.expected, and perhaps rule files.")],
    update: Annotated[bool, typer.Option("--update", help="Write what came as what is expected.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run golden cases against the rule files of the folder, or the shipped library when it has none. Exit 1 if one
    differs."""
    files = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    rules = load_rules(files or library_paths())
    outcomes = [run(case, rules) for case in cases(folder)]
    differing = [outcome for outcome in outcomes if not outcome.ok]
    if update:
        for outcome in differing:
            with writing(expected_path(outcome.case)) as handle:
                handle.writelines(f"{line}\n" for line in outcome.got)
    if as_json:
        print(
            json.dumps({"ok": not differing or update, "cases": len(outcomes), "diffs": [_diff(o) for o in differing]})
        )
    else:
        for outcome in differing:
            print("\n".join(_diff(outcome)))
        verb = "updated" if update else "differ"
        print(f"{len(outcomes)} cases, {len(differing)} {verb}")
    if differing and not update:
        raise typer.Exit(EXIT_FAILURE)


def _diff(outcome: Outcome) -> list[str]:
    names = (str(expected_path(outcome.case)), "what came")
    return list(unified_diff(outcome.expected, outcome.got, *names, lineterm="", n=1))
