"""``citynet bench sim``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from citynet.runtime import log
from citynet.runtime.command import EXIT_FAILURE, JsonOption, command
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.settings import LogSettings, load
from citynet_sim.bench import Values, file_mode, live_mode, load_mode

app = typer.Typer(help="The simulated city: load mode, live, into a file.")

LINES = ("load", "live", "file")
GOALS = {
    ("load", "published_readings_per_s"): (1_000_000.0, False),
    ("load", "published_100000_devices_readings_per_s"): (1_000_000.0, False),
    ("live", "speed"): (1_000.0, False), ("file", "month_of_2000_sensors_cpu_s"): (120.0, True),
}  # fmt: skip


@app.command()
@command
def sim(
    as_json: JsonOption = False,
    only: Annotated[str, typer.Option(help=f"Parts of it, such as load,file. There are {', '.join(LINES)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Tiny counts: shows that it works, not how fast.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a goal is missed.")] = False,
) -> None:
    """Load mode, live faster than time, into a file. About a minute."""
    parts = only.replace(" ", "").split(",") if only else list(LINES)
    if unknown := [part for part in parts if part not in LINES]:
        raise typer.BadParameter(f"{unknown[0]!r}: there are {', '.join(LINES)}", param_hint="--only")
    log.configure(load(LogSettings, None, {"level": "warning"}), "sim")
    found: dict[str, Values] = {}
    with tempfile.TemporaryDirectory(prefix="citynet-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        with EmbeddedMosquitto(folder / "broker") as broker:
            lines: dict[str, Callable[[], Values]] = {
                "load": lambda: load_mode(broker, 0.4 if quick else 5.0),
                "live": lambda: live_mode(broker, folder, 0.1 if quick else 8.0),
                "file": lambda: file_mode(folder, 0.05 if quick else 4.0),
            }
            for part in parts:
                print(f"{part} …", file=sys.stderr)
                found[part] = lines[part]()
    missed = [
        f"{part}.{value}"
        for (part, value), (goal, at_most) in GOALS.items()
        if part in found and (found[part][value] > goal if at_most else found[part][value] < goal)
    ]
    load_average = os.getloadavg()[0]
    if as_json:
        print(json.dumps({"quick": quick, "load_average": load_average, "lines": found, "missed": missed}))
    else:
        for part, values in found.items():
            for value, number in values.items():
                print(f"{part:6} {value:45} {number:>16,.2f}")
        print(f"load average {load_average:.1f}; goals missed: {', '.join(missed) or 'none'}")
    if strict and missed:
        raise typer.Exit(EXIT_FAILURE)
