"""``citynet bench``: measure against baselines, in one run on this machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated

import psycopg
import typer

from citynet.errors import CitynetError
from citynet.runtime.command import EXIT_FAILURE, JsonOption, command
from citynet_ingest.bench import suite
from citynet_ingest.bench.result import Line
from citynet_ingest.bench.stage import Stage, open_stage
from citynet_ingest.bench.throughput import batches, singles

app = typer.Typer(no_args_is_help=True, help="Measure against baselines, in one run on this machine.")
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Tiny counts, in seconds: shows that it works, not how fast.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 1 if a floor is missed.")]
DsnOption = Annotated[str | None, typer.Option(help="Another server than the embedded one; needs CREATEDB.")]


@app.callback()
def bench() -> None:
    """Every figure is a value beside a baseline of the same run; absolute figures are of this machine."""


@app.command("all")
@command
def all_lines(
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    only: Annotated[str, typer.Option(help="Lines to measure, such as 1,4.")] = "",
    quick: QuickOption = False,
    strict: StrictOption = False,
) -> None:
    """The whole table: throughput, disk, delay, memory, cost; each line with floor and goal. About six minutes."""
    numbers = _numbers(only)
    _run(lambda stage: suite.run(stage, numbers), dsn, quick=quick, strict=strict, as_json=as_json)


@app.command()
@command
def ingest(
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    readings: Annotated[int, typer.Option(min=500_000, help="Readings sent in batches of 1,000.")] = 6_000_000,
    messages: Annotated[int, typer.Option(min=1_000, help="Messages of one reading each.")] = 100_000,
) -> None:
    """Lines 1 and 2 alone, with counts of your choice."""
    measures = (partial(batches, readings=readings), partial(singles, messages=messages))
    _run(lambda stage: (measure(stage) for measure in measures), dsn, as_json=as_json)


@app.command()
@command
def rules(
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    quick: QuickOption = False,
    strict: StrictOption = False,
) -> None:
    """Lines 8 to 11 alone: the rules' speed, memory, snapshot and replay."""
    _run(lambda stage: suite.run(stage, suite.RULES), dsn, quick=quick, strict=strict, as_json=as_json)


def _numbers(only: str) -> list[int]:
    """``"1,4"`` as line numbers; all of them for nothing."""
    if not only:
        return list(suite.LINES)
    numbers = [int(word) if word.isdigit() else 0 for word in only.replace(" ", "").split(",")]
    if any(number not in suite.LINES for number in numbers):
        known = ", ".join(f"{number} {title}" for number, (title, _) in suite.LINES.items())
        raise typer.BadParameter(f"{only!r}: there are {known}", param_hint="--only")
    return numbers


def _run(
    measure: Callable[[Stage], Iterable[Line]],
    dsn: str | None,
    *,
    as_json: bool,
    quick: bool = False,
    strict: bool = False,
) -> None:
    started = time.monotonic()
    lines: list[Line] = []
    try:
        with open_stage(dsn, partial(_say, started), quick=quick) as stage:
            facts = stage.facts()
            for line in measure(stage):
                lines.append(line)
                if not as_json:
                    print("\n".join(line.as_text()), flush=True)
    except psycopg.OperationalError as error:
        raise CitynetError(f"database: {str(error).strip()}") from None
    if as_json:
        found = {"quick": quick, "seconds": round(time.monotonic() - started, 1), "machine": facts}
        print(json.dumps(found | {"lines": [line.as_dict() for line in lines]}, ensure_ascii=False))
    if strict and any(line.ok is False for line in lines):
        raise typer.Exit(EXIT_FAILURE)


def _say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)
