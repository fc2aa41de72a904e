"""The umbrella command ``citynet``: a role's code is imported only when its command is called."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
import typer

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


class LazyGroup(click.Group):
    """Lists the installed commands without importing them."""

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = self._points().get(cmd_name)
        if point is None:
            return None
        try:
            app: Any = point.load()
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("citynet"):
                raise
            extra = _EXTRA.get(cmd_name, "server")
            raise click.ClickException(f"{cmd_name} needs {error.name}: pip install 'citynet[{extra}]'") from None
        return typer.main.get_command(app)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _ABOUT.get(name, "")) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="citynet")
def main() -> None:
    """citynet: a city's lifelines, from the sensor to the operator."""


if __name__ == "__main__":
    main()
