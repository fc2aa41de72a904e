"""``citynet rules replay``: which alerts rules would have raised on the stored history, against which were."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command, moment
from citynet_rules.cli_table import table
from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.compare import TOLERANCE_US, Difference, compare
from citynet_rules.proof.history import Span
from citynet_rules.proof.history import replay as run
from citynet_rules.proof.store import RuleStore, open_store
from citynet_rules.rule import COLOURS
from citynet_rules.spec import RuleSet, library_paths, load_rules, replaced, rule_files
from citynet_rules.transition import utc

SHOWN = 40  # lines of a difference as text; --json has all

RulesOption = Annotated[
    list[Path] | None,
    typer.Option("--rules", help="Evaluate and compare the rules of this file or folder only; may be repeated."),
]
NewOption = Annotated[
    list[Path] | None,
    typer.Option("--new", help="Put the rules of this file over those of the settings, by id; may be repeated."),
]
WarmupOption = Annotated[
    float,
    typer.Option(
        "--warmup-h", min=0, max=9600, help="Hours before --from that rules are fed with, to be in the swing."
    ),
]


@dataclass(frozen=True, slots=True)
class Choice:
    """Rules to run, and whose alerts count (None: everybody's)."""

    rules: RuleSet
    compared: Collection[str] | None


def chosen(only: list[Path] | None, new: list[Path] | None, armed: Callable[[], list[Path]]) -> Choice:
    """What --rules and --new come to. Usage error if both are given; ConfigError with all mistakes of the files."""
    if only and new:
        raise typer.BadParameter("give either --rules or --new")
    if only:
        rules = load_rules(rule_files(only))
        return Choice(rules, [rule.id for rule in rules])
    files = armed()
    rules = load_rules(files) if files else RuleSet()
    base = [*files, *(path for path in library_paths() if path not in files)]
    return Choice(replaced(rules, load_rules(rule_files(new), base)) if new else rules, None)


def span_of(from_text: str, to_text: str, warmup_h: float) -> Span:
    """[--from, --to) with its warm-up; usage error if it is empty."""
    start, stop = moment("--from", from_text), moment("--to", to_text)
    if start >= stop:
        raise typer.BadParameter(f"{to_text} is not after --from {from_text}", param_hint="--to")
    return Span(round(start.timestamp() * 1e6), round(stop.timestamp() * 1e6), round(warmup_h * 3.6e9))


def progress_of(span: Span) -> Callable[[int, int], None]:
    """Progress on standard error, a line a percent at most."""
    told = -1

    def progress(at_us: int, readings: int) -> None:
        nonlocal told
        percent = 100 * (at_us - span.start_us) // (span.to_us - span.start_us)
        if percent > told:
            told = percent
            print(f"{utc(at_us)}, {percent} %, {readings} readings", file=sys.stderr, flush=True)

    return progress


@command
def replay(
    from_text: Annotated[str, typer.Option("--from", help="Begin, ISO 8601 with a time zone: 2026-11-01T00:00Z.")],
    to_text: Annotated[str, typer.Option("--to", help="End, not included.")],
    rules: RulesOption = None,
    new: NewOption = None,
    warmup_h: WarmupOption = 24.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run rules over the stored history: alerts that would have been, against those that were."""
    span = span_of(from_text, to_text, warmup_h)
    if rules and new:
        raise typer.BadParameter("give either --rules or --new")
    with ExitStack() as stack:
        store = stack.enter_context(open_store(config))
        choice = chosen(rules, new, store.rule_files)
        span = within(span, store)
        done = run(choice.rules, store.history, span, progress_of(span))
        were = store.alerts(span, choice.compared)
    found = compare(were, done.alerts, span)
    if as_json:
        print(json.dumps({**_facts(span, done.readings, len(choice.rules)), **found.to_json()}, ensure_ascii=False))
    else:
        print(f"{done.readings} readings, {len(choice.rules)} rules, {utc(span.from_us)} to {utc(span.to_us)}")
        print(as_text(found))


def within(span: Span, store: RuleStore) -> Span:
    """The span as far as there are readings: what lies beyond the newest would look like silence of everybody.

    Raises:
        CitynetError: there are none in it.
    """
    extent = store.extent()
    if extent is None or extent[1] < span.from_us or extent[0] >= span.to_us:
        held = "there are none at all" if extent is None else f"there are from {utc(extent[0])} to {utc(extent[1])}"
        raise CitynetError(f"no stored readings between {utc(span.from_us)} and {utc(span.to_us)}; {held}")
    start_us = max(span.start_us, extent[0])
    from_us = max(span.from_us, start_us)
    return Span(from_us, min(span.to_us, extent[1] + 1), from_us - start_us)


def as_text(found: Difference) -> str:
    """A difference for people: a line for each rule, then the alerts that differ."""
    lines: list[tuple[str, ...]] = [("rule", "same", "only new", "only old", "changed")]
    changed = [new for _, new in found.changed]
    parts = (found.same, found.only_new, found.only_old, changed)
    names = sorted({alert.rule for part in parts for alert in part})
    lines += [(name, *(str(sum(alert.rule == name for alert in part)) for part in parts)) for name in names]
    text = [table(lines)] if len(lines) > 1 else ["no alerts, neither then nor now"]
    alerts = [("+", alert) for alert in found.only_new] + [("-", alert) for alert in found.only_old]
    pairs = [row for old, new in found.changed for row in (("<", old), (">", new))]
    rows = [*alerts, *pairs]
    if rows:
        text += ["", "+ only new, - only old, < old and > new of the same alert"]
        text.append(table([_row(sign, alert) for sign, alert in rows[:SHOWN]]))
    if len(rows) > SHOWN:
        text.append(f"and {len(rows) - SHOWN} more: --json has all")
    return "\n".join(text)


def _row(sign: str, alert: Alert) -> tuple[str, ...]:
    cleared = "in force" if alert.cleared_us is None else utc(alert.cleared_us)
    return sign, alert.rule, alert.object, COLOURS[alert.level - 1], utc(alert.raised_us), cleared


def _facts(span: Span, readings: int, rules: int) -> dict[str, object]:
    return {
        "from_us": span.from_us,
        "to_us": span.to_us,
        "warmup_us": span.warmup_us,
        "tolerance_us": TOLERANCE_US,
        "readings": readings,
        "rules": rules,
    }
