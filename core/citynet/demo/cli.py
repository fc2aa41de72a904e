"""``citynet demo``: a whole city on this machine, with one command."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from citynet.demo import run as runs
from citynet.demo.stage import Stage, StageSettings
from citynet.runtime.command import JsonOption, command

app = typer.Typer(help="A whole city on this machine, with one command.")


@app.callback(invoke_without_command=True)
@command
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Run so long, drain, judge, exit (else: until Ctrl-C).")
    ] = None,
    as_json: JsonOption = False,
    chaos: Annotated[bool, typer.Option("--chaos", help="kill -9 ingest and gateways at random moments.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same city, same chaos.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the console; 0: a free one.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Use this new folder and keep it (data, logs, truth).")] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(exists=True, help="Rule file beside the shipped packs; may be repeated.")
    ] = None,
) -> None:
    """Embedded PostgreSQL, private Mosquitto, two gateways, a simulated city, ingest, rules, api and console.

    With --seconds (50 or more: the staged leak must last for 30 s, in readings 5 s apart, before it is an alert) it exits
    0 only if the books balance, nothing is lost or doubled against the simulator's own truth file, and both staged
    incidents were detected.
    """
    chosen = seed if seed is not None else secrets.randbelow(1_000_000)
    say = _sayer(is_json=as_json)
    say(f"citynet demo, seed {chosen}")
    signal.signal(signal.SIGTERM, _as_interrupt)
    folder = _folder(keep)
    try:
        files = tuple(path.resolve() for path in rules or ())
        with Stage(StageSettings(folder, chosen, api_port=port, rules=files), say) as stage:
            _play(stage, seconds, chosen, is_chaotic=chaos, as_json=as_json)
    except KeyboardInterrupt:
        say("\nstopped")
        raise typer.Exit(0 if seconds is None else 130) from None
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _play(stage: Stage, seconds: float | None, seed: int, *, is_chaotic: bool, as_json: bool) -> None:
    started_s = time.time()
    stage.start()
    stage.say(f"\n  console  {stage.address}\n  token    {stage.token}\n  logs     {stage.folder / 'logs'}\n")
    chaos = runs.Chaos(stage, seed) if is_chaotic else None
    runs.play(stage, seconds, chaos, is_quiet=as_json)
    summary = runs.finish(stage, started_s, chaos)
    print(json.dumps(summary.to_json(seed)) if as_json else f"\n{json.dumps(summary.to_json(seed), indent=2)}")
    if not summary.is_success:
        _keep_evidence(stage, summary)
        raise typer.Exit(1)


def _keep_evidence(stage: Stage, summary: runs.Summary) -> None:
    """A failed run is worth more than its disk space."""
    copy = Path(tempfile.mkdtemp(prefix="citynet-demo-failed-"))
    with contextlib.suppress(OSError):
        shutil.copytree(stage.folder / "logs", copy / "logs")
        shutil.copy(stage.truth, copy)
    print(f"error: the run failed; logs and truth file kept in {copy}", file=sys.stderr)
    for key in summary.verdict.missing:
        print(f"missing: {key}", file=sys.stderr)


def _folder(keep: Path | None) -> Path:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=False)
        folder = keep.resolve()
    else:
        folder = Path(tempfile.mkdtemp(prefix="citynet-demo-"))
    folder.chmod(0o711)  # the database server's unprivileged user must reach its own part
    return folder


def _sayer(*, is_json: bool) -> Callable[[str], None]:
    stream = sys.stderr if is_json else sys.stdout
    return lambda text: print(text, file=stream, flush=True)


def _as_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
