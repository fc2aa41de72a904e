"""Commands ``citynet sim topology`` and ``register``: the city's documents for an api, printed or sent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from citynet.errors import ConfigError
from citynet.runtime.command import ConfigOption, command
from citynet.runtime.settings import load
from citynet_sim import registration
from citynet_sim.settings import SimSettings, asked
from citynet_sim.simulation import Simulation
from citynet_sim.staging import simulation_of

TOKEN_VARIABLE = "CITYNET_API_TOKEN"  # noqa: S105  (a variable's name)
ScenarioOption = Annotated[str | None, typer.Option("--scenario", help="Whose city, where a scenario names its own.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Same seed, same city, same readings.")]
GatewaysOption = Annotated[str | None, typer.Option("--gateways", help="Names of the gateways, separated by commas.")]
InpOption = Annotated[str | None, typer.Option("--inp", help="EPANET .inp file: the water network is read from it.")]
GeojsonOption = Annotated[
    str | None, typer.Option("--geojson", help="GeoJSON file: districts and devices are read from it.")
]


@command
def topology(
    config: ConfigOption = None,
    scenario: ScenarioOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Print districts, assets and pipes as the document for POST /v1/topology."""
    simulation = _simulation(config, scenario, seed, gateways, inp, geojson)
    print(json.dumps(registration.topology_of(simulation)))


@command
def register(
    url: Annotated[str, typer.Option(help="The api, such as http://127.0.0.1:8080.")],
    config: ConfigOption = None,
    scenario: ScenarioOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with a token of the role admin; else the variable {TOKEN_VARIABLE}.")
    ] = None,
) -> None:
    """Register the city at an api as any city would: devices and series, then districts, assets and pipes. May be repeated."""
    token = _token(token_file)
    for answer in registration.send(url, token, _simulation(config, scenario, seed, gateways, inp, geojson)):
        print(json.dumps(answer))


def _token(path: Path | None) -> str:
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    else:
        try:
            token = path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"--token-file {path}: {getattr(error, 'strerror', None) or error}"]) from None
    if not token.strip() or not token.strip().isprintable():
        raise ConfigError([f"no token: give --token-file, or set {TOKEN_VARIABLE}"])
    return token.strip()


def _simulation(
    config: Path | None, scenario: str | None, seed: int | None, gateways: str | None, inp: str | None, geojson: str | None
) -> Simulation:  # fmt: skip
    return simulation_of(load(SimSettings, config, asked(scenario, seed, gateways, inp, geojson)), 0)
