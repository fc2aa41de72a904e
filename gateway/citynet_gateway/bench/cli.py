"""``citynet bench gateway``."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from citynet.runtime.command import EXIT_FAILURE, JsonOption, command
from citynet_gateway.bench.lines import LINES, Line

app = typer.Typer(help="A gateway: intake, drain, memory, disk.")


@app.command()
@command
def gateway(
    as_json: JsonOption = False,
    only: Annotated[str, typer.Option(help=f"Parts of it, such as intake,kept. There are {', '.join(LINES)}.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Where to work (default: the system's temporary folder).")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny counts, in seconds: shows that it works, not how fast.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a goal is missed.")] = False,
) -> None:
    """Intake on a quarter of a core, events kept, drain of a backlog, memory, start with a full spool. About four minutes."""
    parts = only.replace(" ", "").split(",") if only else list(LINES)
    if unknown := [part for part in parts if part not in LINES]:
        raise typer.BadParameter(f"{unknown[0]!r}: there are {', '.join(LINES)}", param_hint="--only")
    began_s = time.monotonic()
    lines: list[Line] = []

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began_s:5.0f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="citynet-bench-", dir=folder, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        for part in parts:
            for line in LINES[part](Path(name), say, quick=quick):
                lines.append(line)
                if not as_json:
                    print(line.as_text(), flush=True)
    if as_json:
        print(json.dumps({"quick": quick, "lines": [line.as_dict() for line in lines]}, ensure_ascii=False))
    if strict and not all(line.ok for line in lines):
        raise typer.Exit(EXIT_FAILURE)
