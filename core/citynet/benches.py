"""``citynet bench``: the rooms register their measurements under one command, and are imported when called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import typer

from citynet.cli import LazyGroup


class Benches(LazyGroup):
    """The benches of the installed rooms. A room's app may hold several: each is registered under its own name."""

    group = "citynet.benches"
    about: ClassVar[Mapping[str, str]] = {
        "all": "The server's whole table: throughput, disk, delay, memory, cost.",
        "gateway": "A gateway: intake, drain, memory, disk.",
        "ingest": "Throughput of ingest alone.",
        "rules": "The rules: speed, memory, snapshot, replay.",
        "sim": "The simulated city: load mode, live, into a file.",
    }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        return found.get_command(ctx, cmd_name) if hasattr(found, "get_command") else found


app = typer.Typer(cls=Benches, no_args_is_help=True, help="Measure against baselines, in one run on this machine.")


@app.callback()
def bench() -> None:
    """Measure against baselines, in one run on this machine; absolute figures are of this machine."""
