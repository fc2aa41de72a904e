"""The umbrella command ``citynet``: a role's code is imported only when its command is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

GROUP = "citynet.commands"
_EXTRA = {"gateway": "gateway", "sim": "sim", "demo": "all", "test": "test"}
_ABOUT = {
    "api": "Serve the API and the console; manage tokens.",
    "audit": "Check the conservation equation of a running system.",
    "bench": "Measure against baselines, in one run on this machine.",
    "config": "Check, show or sample the settings.",
    "db": "Migrate the database; show its state.",
    "demo": "A whole city on this machine, with one command.",
    "gateway": "Run a field gateway; look into its spool.",
    "ingest": "Run the ingest tier.",
    "rules": "Check and show alert rules.",
    "sim": "Run the simulated city.",
    "test": "Run every check: formatting, types, import contracts, tests.",
}


class LazyGroup(TyperGroup):
    """Lists the commands of an entry-point group without importing them."""

    group: ClassVar[str] = GROUP
    about: ClassVar[Mapping[str, str]] = _ABOUT

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self._points())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        point = self._points().get(cmd_name)
        if point is None:
            return None
        try:
            role: typer.Typer = point.load()
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("citynet"):
                raise
            extra = _EXTRA.get(
                cmd_name if self.group == GROUP else point.module.partition(".")[0].removeprefix("citynet_"), "server"
            )
            print(f"error: {cmd_name} needs {error.name}: pip install 'citynet[{extra}]'", file=sys.stderr)
            raise typer.Exit(1) from None
        command = typer.main.get_command(role)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.about.get(name, "")) for name in self.list_commands(ctx)])


app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"citynet {version('citynet')}")
        raise typer.Exit


@app.callback()
def umbrella(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """citynet: a city's lifelines, from the sensor to the operator."""


def main() -> None:
    """Entry point of the command ``citynet``."""
    app()


if __name__ == "__main__":
    main()
