"""What every command shares: clear one-line errors, exit codes, options for settings and logs."""

from __future__ import annotations

import datetime as dt
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

from citynet.errors import CitynetError
from citynet.runtime import log
from citynet.runtime.settings import LogSettings, load

P = ParamSpec("P")
R = TypeVar("R")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file (default: ./citynet.toml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

EXIT_FAILURE = 1


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors we foresee into one clear line on stderr and exit code 1."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CitynetError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILURE) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def start_logging(config: Path | None, role: str) -> None:
    """Configure logging from the settings file."""
    log.configure(load(LogSettings, config), role)


def moment(option: str, text: str) -> dt.datetime:
    """A point in time in ISO 8601. Raises: typer.BadParameter (exit 2)."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:80]!r} is no date and time in ISO 8601", param_hint=option) from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text[:80]!r} needs a time zone, such as Z", param_hint=option)
    return moment.astimezone(dt.UTC)
