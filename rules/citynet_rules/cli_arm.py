"""``citynet rules arm`` and ``list``: who armed what, since when, why, and how it had scored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.runtime.command import EXIT_FAILURE, ConfigOption, JsonOption, command
from citynet_rules.cli_table import table
from citynet_rules.lint import armable
from citynet_rules.proof.gate import ArmedRule, Decision, refusals
from citynet_rules.proof.store import open_store
from citynet_rules.spec import RuleSet, rule_files

_RELOAD = "a worker takes them when it reads its rule files: at its start, or at SIGHUP"

FilesArgument = Annotated[list[Path], typer.Argument(help="Rule files or folders of them.", show_default=False)]
AuthorOption = Annotated[str, typer.Option(help="Who arms them.")]
ReasonOption = Annotated[str, typer.Option(help="Why.")]
OverrideOption = Annotated[
    str | None,
    typer.Option(help="'NAME: why' of somebody who answers for rules that are not proved; it is written down."),
]


@command
def arm(
    paths: FilesArgument,
    author: AuthorOption,
    reason: ReasonOption,
    override: OverrideOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide that these rules may run as their files say. Exit 1, and nothing is decided, if one of them may not."""
    for name, text in (("--author", author), ("--reason", reason)):
        if not text.strip():
            raise typer.BadParameter("must not be empty", param_hint=name)
    answers = _answers(override)
    files = rule_files(paths)
    rules = armable(files)
    with open_store(config) as store:
        scores = store.kept_scores([rule.fingerprint for rule in rules])
        refused = {
            rule.id: found
            for rule in rules
            if rule.mode == "live" and (found := refusals(rule, scores.get(rule.fingerprint)))
        }
        is_done = not refused or answers is not None
        if is_done:
            store.decide(
                Decision(rule, author, reason, answers if rule.id in refused else None, tuple(refused.get(rule.id, ())))
                for rule in rules
            )
        read = {path.resolve() for path in store.rule_files()}
    unread = [str(path) for path in files if path.resolve() not in read]
    _tell(rules, refused, is_done=is_done, unread=unread, as_json=as_json)
    if not is_done:
        raise typer.Exit(EXIT_FAILURE)


def _answers(override: str | None) -> tuple[str, str] | None:
    """Name and reason of an override. Usage error unless it has both."""
    if override is None:
        return None
    name, _, why = (part.strip() for part in override.partition(":"))
    if not name or not why:
        raise typer.BadParameter("must be 'NAME: why'", param_hint="--override")
    return name, why


def _tell(rules: RuleSet, refused: dict[str, list[str]], *, is_done: bool, unread: list[str], as_json: bool) -> None:
    if as_json:
        facts = {"ok": is_done, "rules": [rule.id for rule in rules], "refused": refused, "not_in_settings": unread}
        print(json.dumps(facts, ensure_ascii=False))
        return
    for name, found in refused.items():
        print(f"{rules.origins[name]}: {name}: {'; '.join(found)}", file=sys.stderr)
    if not is_done:
        print("nothing was armed; --override 'NAME: why' arms it nevertheless", file=sys.stderr)
        return
    overridden = f", {len(refused)} of them by override" if refused else ""
    print(f"{len(rules)} rules may run{overridden}; {_RELOAD}")
    for path in unread:
        print(f"not among the rule files of these settings: {path}", file=sys.stderr)


@command
def list_armed(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What workers evaluate: since when, armed by whom and why, and the last kept score."""
    with open_store(config) as store:
        rules = store.armed()
    if as_json:
        print(json.dumps([_facts(rule) for rule in rules], ensure_ascii=False))
        return
    header = ("rule", "version", "mode", "since", "by", "reason", "precision", "recall", "")
    print(table([header, *(_row(rule) for rule in rules)]))


def _facts(rule: ArmedRule) -> dict[str, Any]:
    score = rule.score
    return {
        "rule": rule.rule,
        "version": rule.version,
        "mode": rule.mode,
        "since": rule.since.isoformat(),
        "author": rule.author,
        "reason": rule.reason,
        "override": rule.override,
        "why_shadow": rule.why,
        "score": score and {"at": score.at.isoformat(), "precision": score.precision, "recall": score.recall},
    }


def _row(rule: ArmedRule) -> tuple[str, ...]:
    score = rule.score
    shares = (score.precision, score.recall) if score else (None, None)
    note = f"not proved: {rule.why}" if rule.why else f"override of {rule.override}" if rule.override else ""
    return (
        rule.rule, rule.version, rule.mode, f"{rule.since:%Y-%m-%d %H:%M}", rule.author or "-", rule.reason or "-",
        *("-" if share is None else f"{share:.3f}" for share in shares), note,
    )  # fmt: skip
