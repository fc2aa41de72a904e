"""``citynet rules score --truth``: rules against what a simulated city is known to have staged."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from citynet.errors import CitynetError
from citynet.runtime.command import moment
from citynet_rules.cli_replay import chosen, progress_of, within
from citynet_rules.cli_table import table
from citynet_rules.proof.history import Span
from citynet_rules.proof.history import replay as run
from citynet_rules.proof.recorded import RecordedHistory
from citynet_rules.proof.score import Report, Score, score
from citynet_rules.proof.store import open_store
from citynet_rules.proof.truth import Truth, read_truth
from citynet_rules.spec import library_paths
from citynet_rules.transition import utc

MISSED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What ``score --truth`` was asked for."""

    truth: Path
    recorded: Path | None
    from_text: str | None
    to_text: str | None
    rules: list[Path] | None
    new: list[Path] | None
    operators: int
    tolerance_s: float
    keep_by: str | None
    config: Path | None
    as_json: bool


def score_truth(asked: Asked) -> None:
    """Replay the rules over the readings of the truth's run and print their score."""
    truth = read_truth(asked.truth)
    with ExitStack() as stack:
        if asked.recorded is not None:
            choice = chosen(asked.rules, asked.new, library_paths)
            history = RecordedHistory(asked.recorded, truth)
            span = _span(asked, truth, history.extent)
            done = run(choice.rules, history, span, progress_of(span))
        else:
            store = stack.enter_context(open_store(asked.config))
            choice = chosen(asked.rules, asked.new, store.rule_files)
            span = within(_span(asked, truth, store.extent), store)
            done = run(choice.rules, store.history, span, progress_of(span))
    tolerance_us = round(asked.tolerance_s * 1e6)
    report = score(choice.rules, done.alerts, truth, span, operators=asked.operators, tolerance_us=tolerance_us)
    if asked.keep_by is not None:
        with open_store(asked.config) as store:
            store.keep_scores(report.rules, choice.rules, span=span, truth=truth.digest, author=asked.keep_by)
    if asked.as_json:
        facts = {
            "truth": str(asked.truth), "from_us": span.from_us, "to_us": span.to_us, "readings": done.readings,
            "operators": asked.operators, "tolerance_us": tolerance_us,
        }  # fmt: skip
        print(json.dumps({**facts, **report.to_json()}, ensure_ascii=False))
    else:
        print(f"{done.readings} readings, {len(choice.rules)} rules, {utc(span.from_us)} to {utc(span.to_us)}")
        print(as_text(report))


def _span(asked: Asked, truth: Truth, extent: Callable[[], tuple[int, int] | None]) -> Span:
    """From the city's start, unless said otherwise, to the newest reading. Usage error if nothing is left."""
    start_us = truth.started_at_us
    if asked.from_text is not None:
        start_us = round(moment("--from", asked.from_text).timestamp() * 1e6)
    if asked.to_text is not None:
        stop_us = round(moment("--to", asked.to_text).timestamp() * 1e6)
    else:
        found = extent()
        if found is None:
            raise CitynetError("there are no stored readings")
        stop_us = found[1] + 1
    if start_us >= stop_us:
        raise typer.BadParameter(f"nothing lies between {utc(start_us)} and {utc(stop_us)}", param_hint="--from, --to")
    warmup_us = max(0, start_us - truth.started_at_us)
    return Span(start_us, stop_us, warmup_us)


def as_text(report: Report) -> str:
    """A report for people."""
    header = (
        "rule",
        "due",
        "found",
        "recall",
        "alerts",
        "false",
        "precision",
        "delay s",
        "max",
        "false/day",
        "alerts/op-h",
    )
    rows = [(name, *_cells(score)) for name, score in report.rules.items() if score.alerts or score.due]
    total = [("all rules", *_cells(report.total)), ("public safety", *_cells(report.public))]
    quiet = len(report.rules) - len(rows)
    lines = [table([header, *rows, *total])]
    if quiet:
        lines.append(f"{quiet} rules raised nothing, and nothing was due for them")
    lines.append(f"{report.incidents_found} of {report.incidents} incidents found, in {report.days:.3g} days")
    if (rate := report.false_public_per_1000_sensor_days) is not None:
        lines.append(f"{rate:.3g} false public-safety alerts per 1,000 sensors and day, {report.sensors} sensors")
    lines += [f"missed: {incident} at {device}" for incident, device in report.missed[:MISSED_SHOWN]]
    if len(report.missed) > MISSED_SHOWN:
        lines.append(f"and {len(report.missed) - MISSED_SHOWN} more: --json has all")
    return "\n".join(lines)


def _cells(score: Score) -> tuple[str, ...]:
    return (
        str(score.due), str(score.found), _share(score.recall), str(score.alerts), str(score.false), _share(score.precision),
        _number(score.delay_median_s), _number(score.delay_max_s), f"{score.false_per_day:.3g}",
        f"{score.alerts_per_operator_hour:.3g}",
    )  # fmt: skip


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
