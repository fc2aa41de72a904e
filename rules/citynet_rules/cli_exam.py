"""``citynet rules exam``: the rules against scenarios of the labelled city, in one command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.runtime.command import JsonOption, command
from citynet_rules.cli_neighbours import beside
from citynet_rules.cli_replay import NewOption, RulesOption, chosen
from citynet_rules.cli_table import table
from citynet_rules.kinds.witness import WitnessRule
from citynet_rules.proof import exam as exams
from citynet_rules.proof.exam import CLASSES, Mark, Paper, Row
from citynet_rules.proof.history import Span, replay
from citynet_rules.proof.rehearsal import Extremes, StagedHistory, Stager, places_of, staged_of, stager
from citynet_rules.spec import RuleSet, library_paths
from citynet_rules.transition import utc

SHOWN = 40  # lines of a list as text; --json has all


@command
def exam(
    scenario: Annotated[
        list[str] | None, typer.Option(help="A scenario of `citynet sim list`, or the path of one; may be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every scenario that ships.")] = False,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="The city's seed; may be repeated (default: 1).")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=60, help="Seconds of each scenario (default: as it says).")
    ] = None,
    population: Annotated[int, typer.Option(min=1000, help="Size of the city.")] = 1_000_000,
    every_s: Annotated[float, typer.Option(min=1, help="Seconds between the messages of a device.")] = 60.0,
    warmup_h: Annotated[
        float, typer.Option(min=0, max=9600, help="Hours of the city before a scenario, for rules to learn from.")
    ] = 48.0,
    rules: RulesOption = None,
    new: NewOption = None,
    operators: Annotated[int, typer.Option(min=1, help="Operators on duty.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Stage scenarios, run the rules over them as they would run live, and mark their alerts against what was staged."""
    if (scenario is None) != every:
        raise typer.BadParameter("give --scenario or --all")
    city = stager()
    armed = chosen(rules, new, lambda: [*library_paths(), *city.rule_files()]).rules
    papers = [
        sit(city, armed, name, each, duration=duration, population=population, every_s=every_s, warmup_h=warmup_h)
        for name in (city.names() if every else scenario or [])
        for each in seed or [1]
    ]
    if as_json:
        print(json.dumps(to_json(papers, operators), ensure_ascii=False))
    else:
        print(as_text(papers, operators))


def sit(
    city: Stager, rules: RuleSet, name: str, seed: int, *, duration: float | None, population: int, every_s: float,
    warmup_h: float,
) -> Paper:  # fmt: skip
    """Stage one scenario and judge the alerts. Memory: the engine, one piece of the city, the alerts."""
    rehearsal = city.stage(name, seed=seed, duration_s=duration, population=population, every_s=every_s)
    staged = staged_of(rehearsal.header)
    extremes = Extremes(rehearsal.header, staged)
    span = Span(rehearsal.start_us, rehearsal.end_us, round(warmup_h * 3.6e9))
    rules = beside_in(rules, rehearsal.header)
    done = replay(rules, StagedHistory(rehearsal, extremes), span, _progress(name, seed, span))
    return exams.examine(
        rules, done.alerts, staged, places_of(rehearsal.header), extremes, span, scenario=Path(name).stem, seed=seed,
        readings=done.readings,
    )  # fmt: skip


def beside_in(rules: RuleSet, header: Mapping[str, Any]) -> RuleSet:
    """The rules with who stands beside whom, as `citynet rules neighbours` tells a real city; files that say so go before."""
    wanted = {rule.metric for rule in rules if isinstance(rule, WitnessRule) and rule.neighbours is not None}
    # A city without positions has no neighbours.
    found = {metric: beside(header["devices"], metric) for metric in sorted(wanted - rules.neighbours.keys())}
    return replace(rules, neighbours={**rules.neighbours, **{metric: of for metric, of in found.items() if of}})


def _progress(name: str, seed: int, span: Span) -> exams.Progress:
    told = -1

    def progress(at_us: int, readings: int) -> None:
        nonlocal told
        tenth = 10 * (at_us - span.start_us) // (span.to_us - span.start_us)
        if tenth > told:
            told = tenth
            print(f"{name}, seed {seed}: {10 * tenth} %, {readings} readings", file=sys.stderr, flush=True)

    return progress


# --- what it came to ---------------------------------------------------------------------------------------------------


def to_json(papers: Sequence[Paper], operators: int) -> dict[str, Any]:
    """All figures, and every alert for people and every missed place."""
    return {
        "papers": [
            {
                "scenario": paper.scenario, "seed": paper.seed, "days": paper.days, "sensors": paper.sensors,
                "readings": paper.readings, **_mark_json(exams.mark([paper], operators)),
            }
            for paper in papers
        ],
        "all": _mark_json(exams.mark(papers, operators)),
        "rules": [_row_json(row) for row in exams.by_rule(papers)],
        "domains": [_row_json(row) for row in exams.by_domain(papers)],
        "kinds": [_row_json(row) for row in exams.by_kind(papers)],
        "device_faults": [
            {"kind": kind, "faults": count, "noticed": noticed, "for_people": graded}
            for kind, count, noticed, graded in exams.by_device_fault(papers)
        ],
        "origins": dict(exams.by_origin(papers)),
        "missed": [
            {
                "scenario": paper.scenario, "seed": paper.seed, "incident": sight.incident.id, "device": sight.device,
                "is_seen": sight.is_seen, "why": sight.why,
            }
            for paper in papers for sight in paper.sights if sight.delay_s is None
        ],
        "alerts": [
            {
                "scenario": paper.scenario, "seed": paper.seed, "class": each.verdict, "cause": each.cause or None,
                **each.alert.to_json(),
            }
            for paper in papers for each in paper.judged if each.is_for_people
        ],
    }  # fmt: skip


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name, **row.alerts, "precision": row.precision, "due": row.due, "found": row.found, "seen": row.seen,
        "recall": row.recall, "delay_median_s": row.delay_median_s, "delay_max_s": row.delay_max_s,
    }  # fmt: skip


def _mark_json(mark: Mark) -> dict[str, Any]:
    return {
        **_row_json(mark.total),
        "incidents": mark.incidents,
        "incidents_found": mark.incidents_found,
        "incident_recall": mark.incident_recall,
        "sensor_days": mark.sensor_days,
        "false_for_people_per_1000_sensor_days": mark.false_per_1000_sensor_days,
        "alerts_per_operator_hour": mark.alerts_per_operator_hour,
        "sensor_faults": mark.device_faults,
        "sensor_faults_noticed": mark.device_faults_noticed,
        "sensor_faults_for_people": mark.device_faults_for_people,
        "share_of_sensor_faults_for_people": mark.device_share_for_people,
    }


def as_text(papers: Sequence[Paper], operators: int) -> str:
    """All of it for people."""
    whole = exams.mark(papers, operators)
    parts = [_runs(papers)]
    for title, rows in (
        ("rule", exams.by_rule(papers)),
        ("domain", exams.by_domain(papers)),
        ("fault", exams.by_kind(papers)),
    ):
        parts.append(table([_header(title), *map(_cells, rows)]))
    if found := exams.by_device_fault(papers):
        header = ("device fault", "staged", "noticed", "graded for people")
        parts.append(table([header, *((kind, *map(str, counts)) for kind, *counts in found)]))
    if origins := exams.by_origin(papers):
        header = ("methane of", "said leak", "biogas", "unknown")
        parts.append(table([header, *((name, *map(str, counts.values())) for name, counts in origins)]))
    parts.append("\n".join(_shortened(_missed(papers), "every place was found")))
    parts.append("\n".join(_shortened(_unjustified(papers), "no alert without a cause")))
    parts.append("\n".join(_marks(whole)))
    return "\n\n".join(parts)


def _runs(papers: Sequence[Paper]) -> str:
    header = ("scenario", "seed", "days", "readings", "incidents", "found", *_header("")[1:])
    rows = []
    for paper in papers:
        own = exams.mark([paper])
        facts = (paper.scenario, str(paper.seed), f"{paper.days:.3g}", str(paper.readings))
        rows.append((*facts, str(own.incidents), str(own.incidents_found), *_cells(own.total)[1:]))
    return table([header, *rows])


def _header(first: str) -> tuple[str, ...]:
    return (first, *CLASSES, "precision", "places", "found", "seen", "recall", "delay s", "max")


def _cells(row: Row) -> tuple[str, ...]:
    counts = (str(row.alerts[name]) for name in CLASSES)
    return (
        row.name, *counts, _share(row.precision), str(row.due), str(row.found), str(row.seen), _share(row.recall),
        _seconds(row.delay_median_s), _seconds(row.delay_max_s),
    )  # fmt: skip


def _missed(papers: Sequence[Paper]) -> list[str]:
    return [
        f"missed: {paper.scenario} {paper.seed} {sight.incident.id} at {sight.device}: {sight.why}"
        for paper in papers
        for sight in paper.sights
        if sight.delay_s is None
    ]


def _unjustified(papers: Sequence[Paper]) -> list[str]:
    return [
        f"{each.verdict}: {paper.scenario} {paper.seed} {utc(each.alert.raised_us)} {each.rule.id} at {each.alert.object}"
        f"{f', {each.cause}' if each.cause else ''}"
        for paper in papers
        for each in paper.judged
        if each.is_for_people and each.verdict in (exams.FALSE, exams.OF_DEVICE)
    ]


def _shortened(lines: Sequence[str], none: str) -> Iterable[str]:
    rest = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {rest} more: --json has all"] if rest > 0 else [])] or [none]


def _marks(mark: Mark) -> list[str]:
    return [
        f"recall on incidents                                    {_share(mark.incident_recall)} "
        f"({mark.incidents_found} of {mark.incidents}); on places {_share(mark.total.recall)}; floor 0.95",
        f"false alerts for people per 1,000 sensors and day      {mark.false_per_1000_sensor_days:.3g} "
        f"(in {mark.sensor_days:.0f} sensor days); at most 1",
        f"share of sensor faults graded for people               {_share(mark.device_share_for_people)} "
        f"({mark.device_faults_for_people} of {mark.device_faults}; {mark.device_faults_noticed} noticed); at most 0.02",
        f"alerts for people per operator hour                    {mark.alerts_per_operator_hour:.3g}",
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
