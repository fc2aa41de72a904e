"""``citynet rules score``: severities of recorded series and of tables of sensors; `--truth` is in `cli_truth`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

from citynet.batch import F64
from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet_rules.cli_csv import CsvTable, reading, writing
from citynet_rules.cli_replay import NewOption, RulesOption
from citynet_rules.cli_truth import Asked, score_truth
from citynet_rules.detect import ensemble
from citynet_rules.detect.ensemble import SeriesDetector
from citynet_rules.detect.table import (
    ALARM,
    FALSE_ALARM_RATE,
    WARMUP_ROWS_MIN,
    Model,
    TableDetector,
    learn,
)
from citynet_rules.proof import score as score_defaults

PIECE_ROWS = 4096
PROGRESS_ROWS = 100_000

CorpusOption = Annotated[
    Path | None, typer.Option(help="Folder; every CSV below its data/ is a series timestamp,value.")
]
TableOption = Annotated[Path | None, typer.Option(help="CSV with a time column, then one column a sensor.")]
WarmupOption = Annotated[
    int | None, typer.Option(min=WARMUP_ROWS_MIN, help="With --table: rows to learn from; no later row is learnt.")
]
OutOption = Annotated[Path | None, typer.Option(help="Folder (--corpus) or file (--table, default: standard output).")]
SkipOption = Annotated[
    list[str] | None, typer.Option(help="With --table: a column that is no sensor; may be repeated.")
]
TruthOption = Annotated[Path | None, typer.Option(help="Truth file of a simulated city.")]
RecordedOption = Annotated[
    Path | None, typer.Option(help="With --truth: the run's own readings file instead of the database.")
]
FromOption = Annotated[str | None, typer.Option("--from", help="With --truth: begin (default: the run's).")]
ToOption = Annotated[str | None, typer.Option("--to", help="With --truth: end (default: the newest reading).")]
OperatorsOption = Annotated[int, typer.Option(min=1, help="With --truth: operators on duty.")]
KeepOption = Annotated[
    str | None, typer.Option(help="With --truth: keep the scores in the database, under this author, for arming.")
]
ToleranceOption = Annotated[
    float, typer.Option(min=0, help="With --truth: seconds by which an alert may miss an incident's time.")
]


@command
def score(
    *,
    corpus: CorpusOption = None,
    table: TableOption = None,
    warmup: WarmupOption = None,
    out: OutOption = None,
    skip: SkipOption = None,
    truth: TruthOption = None,
    recorded: RecordedOption = None,
    from_text: FromOption = None,
    to_text: ToOption = None,
    rules: RulesOption = None,
    new: NewOption = None,
    operators: OperatorsOption = 1,
    tolerance_s: ToleranceOption = score_defaults.TOLERANCE_US / 1e6,
    keep_by: KeepOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Severity 0..1 of every row of recorded data, strictly in order; or, with --truth, how good rules are."""
    if sum(source is not None for source in (corpus, table, truth)) != 1:
        raise typer.BadParameter("give one of --corpus, --table and --truth")
    if truth is not None:
        if out is not None or warmup is not None or skip:
            raise typer.BadParameter("--truth takes neither --out nor --warmup nor --skip")
        score_truth(
            Asked(truth, recorded, from_text, to_text, rules, new, operators, tolerance_s, keep_by, config, as_json)
        )
        return
    if any((recorded, from_text, to_text, rules, new, keep_by)):
        raise typer.BadParameter("--recorded, --from, --to, --rules, --new and --keep-by belong to --truth")
    if corpus is not None:
        if out is None or warmup is not None or skip:
            raise typer.BadParameter("--corpus needs --out, and takes neither --warmup nor --skip")
        summary = score_corpus(corpus, out)
        line = "{rows} rows of {series} series, {alarms} alarms (severity from {alarm_from}), written below {out}"
    else:
        if table is None or warmup is None or (as_json and out is None):
            raise typer.BadParameter("--table needs --warmup, and --out if --json is asked for")
        summary = score_table(table, warmup, out, frozenset(skip or ()))
        line = "{rows} rows judged after {warmup}, {sensors} sensors, {alarm_rows} rows in {alarms} alarms"
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print(line.format(**summary), file=sys.stderr)
        for column, why in summary.get("ignored", {}).items():
            print(f"not judged: {column} ({why})", file=sys.stderr)


def score_corpus(corpus: Path, out: Path) -> dict[str, Any]:
    """Write timestamp,severity for every CSV below `corpus`/data at the same relative path below `out`."""
    root = corpus / "data"
    files = sorted(root.rglob("*.csv"))
    if not files:
        raise CitynetError(f"{root}: no CSV files below this folder")
    if out.resolve().is_relative_to(root.resolve()):
        raise CitynetError(f"{out}: would write among the series of {root}")
    rows = alarms = 0
    for number, path in enumerate(files, 1):
        name = path.relative_to(root)
        with reading(path) as series, writing(out / name) as target:
            n, alarmed = score_series(series, target)
        rows += n
        alarms += alarmed
        print(f"{number}/{len(files)} {name}: {n} rows, {alarmed} alarms", file=sys.stderr, flush=True)
    return {"series": len(files), "rows": rows, "alarms": alarms, "alarm_from": ensemble.ALARM, "out": str(out)}


def score_series(series: CsvTable, target: TextIO) -> tuple[int, int]:
    """Stream one series through a detector; rows and alarms."""
    at, value = series.place("timestamp"), series.place("value")
    detector = SeriesDetector()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(("timestamp", "severity"))
    rows = alarms = 0
    parsed = ((cells[at], series.time_s(cells, at), series.number(cells, value)) for cells in series.rows())
    while piece := list(islice(parsed, PIECE_ROWS)):
        severity = detector.feed(np.array([row[1] for row in piece]), np.array([row[2] for row in piece]))
        writer.writerows((row[0], f"{each:.9f}") for row, each in zip(piece, severity.tolist(), strict=True))
        rows += len(piece)
        alarms += int((severity >= ensemble.ALARM).sum())
    return rows, alarms


@dataclass
class Tally:
    """What a table came to so far."""

    rows: int = 0
    alarm_rows: int = 0
    alarms: int = 0
    last: bool = False

    def add(self, severity: F64) -> None:
        """Count rows, rows in alarm, and alarms (runs of such rows)."""
        alarm = severity >= ALARM
        self.rows += len(alarm)
        self.alarm_rows += int(alarm.sum())
        self.alarms += int((alarm & ~np.concatenate([[self.last], alarm[:-1]])).sum())
        self.last = bool(alarm[-1])


def score_table(path: Path, warmup: int, out: Path | None, skip: frozenset[str]) -> dict[str, Any]:
    """Learn from the first `warmup` rows, then write time,severity,alarm of each later row."""
    with reading(path) as table:
        sensors = sensor_columns(table, skip)
        rows = ((cells[0], [table.number(cells, place) for place in sensors]) for cells in table.rows())
        first = list(islice(rows, warmup))
        if len(first) < warmup:
            raise table.error(f"the table ends after {len(first)} rows, the warm-up takes {warmup}")
        try:
            model = learn(np.array([values for _, values in first]))
        except CitynetError as error:
            raise CitynetError(f"{path}: {error}") from None
        with writing(out) if out is not None else nullcontext(sys.stdout) as target:
            tally = write_alarms(rows, model, target)
            if not tally.rows:
                raise table.error(f"the warm-up takes all {warmup} rows, none is left to judge")
    names = [table.header[place] for place in sensors]
    return {
        "rows": tally.rows, "warmup": warmup, "sensors": len(model.scale.used), "alarm_rows": tally.alarm_rows,
        "alarms": tally.alarms, "alarm_from": ALARM, "false_alarm_rate": FALSE_ALARM_RATE,
        "ignored": {names[number]: why for number, why in model.scale.ignored.items()},
    }  # fmt: skip


def sensor_columns(table: CsvTable, skip: frozenset[str]) -> list[int]:
    """Indices of the columns to read: all after the first that are not to be skipped."""
    unknown = skip.difference(table.header[1:])
    if unknown:
        raise CitynetError(f"{table.path}:1: no column {sorted(unknown)[0]!r} to skip")
    places = [place for place in range(1, len(table.header)) if table.header[place] not in skip]
    if not places:
        raise CitynetError(f"{table.path}:1: no sensor column; a time column and at least one more are needed")
    if all(is_number(table.header[place]) for place in places):
        raise CitynetError(f"{table.path}:1: the first line must name the columns, it holds numbers")
    return places


def is_number(text: str) -> bool:
    """Whether a header's cell looks like data."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_alarms(rows: Iterator[tuple[str, list[float]]], model: Model, target: TextIO) -> Tally:
    """Stream rows through the model."""
    detector = TableDetector(model)
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(("time", "severity", "alarm"))
    tally = Tally()
    told = 0
    while piece := list(islice(rows, PIECE_ROWS)):
        severity = detector.feed(np.array([values for _, values in piece], np.float64))
        alarm = severity >= ALARM
        writer.writerows(
            (time, f"{each:.9f}", int(on))
            for (time, _), each, on in zip(piece, severity.tolist(), alarm.tolist(), strict=True)
        )
        tally.add(severity)
        if tally.rows - told >= PROGRESS_ROWS:
            told = tally.rows
            print(f"{told} rows judged", file=sys.stderr, flush=True)
    return tally
