"""``citynet test``: every check of the project, in the order in which they fail fastest."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from citynet.errors import CitynetError
from citynet.runtime.command import command

app = typer.Typer(help="Run every check: formatting, types, import contracts, tests.")
_BIN = Path(sys.executable).parent
# Most tests wait for other processes; three at a time use two processors. A later -n (or -p no:xdist) on the command line wins.
# Each takes neighbouring tests, for they share fixtures, and who has none left takes some of another's.
_WORKERS = ["-n", "3", "--dist", "worksteal"]
_CHECKS = [
    ("format", ["ruff", "format", "--check", "."]),
    ("lint", ["ruff", "check", "."]),
    ("imports", ["lint-imports"]),
    ("types", ["mypy"]),
]


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@command
def test(
    context: typer.Context,
    checks: Annotated[
        bool, typer.Option(help="Run formatting, lint, import contracts and types before the tests.")
    ] = True,
) -> None:
    """Run the checks, then pytest; further arguments go to pytest. Exit 1 if anything failed."""
    root = _root()
    failed = [name for name, words in (_CHECKS if checks else []) if not _passes(name, words, root)]
    if not _passes("tests", ["pytest", *_WORKERS, *context.args], root):
        failed.append("tests")
    if failed:
        raise CitynetError(f"failed: {', '.join(failed)}")


def _root() -> Path:
    """The checkout: this file is two folders below its top."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "tests").is_dir():
        raise CitynetError("citynet test needs a checkout of the source, installed with pip install -e '.[test]'")
    return root


def _passes(name: str, words: list[str], root: Path) -> bool:
    print(f"── {name}: {' '.join(words)}", flush=True)
    started = time.monotonic()
    code = subprocess.run([str(_BIN / words[0]), *words[1:]], cwd=root, check=False).returncode
    print(f"── {name}: {'ok' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - started:.0f} s", flush=True)
    return code == 0
