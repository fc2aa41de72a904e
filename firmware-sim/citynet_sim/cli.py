"""Command ``citynet sim``: play the simulated city, or tell about it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.errors import ConfigError
from citynet.runtime.command import ConfigOption, JsonOption, command, start_logging
from citynet.runtime.settings import load
from citynet_sim import city as layout
from citynet_sim import cli_load, cli_register, cli_serve, export, faults, into_store, live, plots, texture, topology
from citynet_sim import scenario as scenarios
from citynet_sim.catalogue import CATALOGUE
from citynet_sim.cli_register import GatewaysOption, GeojsonOption, InpOption, SeedOption
from citynet_sim.settings import SimSettings, asked
from citynet_sim.staging import LIVE_HORIZON_S, city_of, simulation_of
from citynet_sim.truth import End, TruthWriter

app = typer.Typer(help="Run the simulated city.", no_args_is_help=True)
app.command("load")(cli_load.load)
app.command("serve")(cli_serve.serve)
app.command("topology")(cli_register.topology)
app.command("register")(cli_register.register)

EXPORT_START = "2026-01-01T00:00:00Z"
LEAD_US = 3_000_000  # a live city starts three seconds from now: time to compute the first samples
PROGRESS_S = 2.0

ScenarioArgument = Annotated[
    str | None, typer.Argument(help="See `citynet sim list`, or the path of a .toml file (default: demo).")
]
StartOption = Annotated[str | None, typer.Option(help="First moment, ISO 8601 with zone; not at real-time speed.")]
DurationOption = Annotated[float | None, typer.Option(min=0.001, help="Seconds of the city's time.")]


@app.command()
@command
def run(
    scenario: ScenarioArgument = None,
    config: ConfigOption = None,
    broker_host: Annotated[str | None, typer.Option(help="The field broker.")] = None,
    broker_port: Annotated[int | None, typer.Option()] = None,
    gateways: GatewaysOption = None,
    seed: SeedOption = None,
    duration: DurationOption = None,
    speed: Annotated[float | None, typer.Option(help="City seconds a second (1: real time).")] = None,
    start: StartOption = None,
    truth_path: Annotated[Path | None, typer.Option("--truth", help="Write the ground truth to this new file.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="No broker: write the readings to this file (.npz: columns), at full speed.")
    ] = None,
    *,
    into_store: Annotated[
        bool, typer.Option("--into-store", help="No broker: readings straight into the database, at full speed.")
    ] = False,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Play the city: to a broker until stopped; with --out into a file, or into the store, as long as the scenario says."""
    flags = {**asked(scenario, seed, gateways, inp, geojson), "speed": speed}
    flags["broker"] = {k: v for k, v in {"host": broker_host, "port": broker_port}.items() if v is not None} or None
    settings = load(SimSettings, config, flags)
    start_logging(config, "sim")
    if into_store and out is not None:
        raise ConfigError(["--into-store: not together with --out"])
    if into_store:
        _store(settings, config, start, duration, truth_path)
    elif out is not None:
        _export(settings, start, duration, truth_path, out)
    else:
        _live(settings, None if start is None else _moment_us(start), duration, truth_path)


@app.command("list")
@command
def list_scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios."""
    known = scenarios.shipped().values()
    if as_json:
        rows = [
            {
                "name": one.name,
                "about": one.file.about,
                "duration_s": one.file.duration_s,
                "faults": [entry.kind for entry in [*one.file.weather, *one.file.fault, *one.file.draw]],
            }
            for one in known
        ]
        print(json.dumps(rows))
        return
    for one in known:
        print(f"{one.name:20} {one.file.about}")


@app.command("faults")
@command
def list_faults(as_json: JsonOption = False) -> None:
    """List the kinds of faults that a scenario may name, with their defaults."""
    if as_json:
        print(json.dumps([asdict(kind) for kind in CATALOGUE.values()]))
        return
    for kind in CATALOGUE.values():
        size = (
            f"peak {kind.peak:g} {kind.unit}, rise {kind.rise_s:g} s, hold {kind.hold_s:g} s, decay {kind.decay_s:g} s"
        )
        print(f"{kind.layer:10} {kind.name:18} {kind.about} ({kind.device_kind or 'any'}; {size})")


@app.command()
@command
def check(
    files: Annotated[list[str], typer.Argument(help="Scenario files, or names of shipped ones.")],
    config: ConfigOption = None,
    seed: SeedOption = None,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Check scenarios: every mistake is one line with file and key; exit 1 if there is any."""
    problems: list[str] = []
    for name in files:
        try:
            simulation_of(load(SimSettings, config, asked(name, seed, None, inp, geojson)), 0)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    print(f"{len(files)} scenario{'' if len(files) == 1 else 's'} without mistakes")


@app.command()
@command
def truth(
    scenario: ScenarioArgument = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    start: StartOption = None,
    duration: DurationOption = None,
    as_json: JsonOption = False,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Tell what goes wrong in a scenario, without playing it; with --json as the faults of its truth file, one a line."""
    settings = load(SimSettings, config, asked(scenario, seed, gateways, inp, geojson))
    t0_us, t1_us = _span_us(settings, start, duration)
    for fault in simulation_of(settings, t0_us, (t1_us - t0_us) / 1e6).faults:
        if as_json:
            print(json.dumps(fault.to_json()))
        else:
            first, last = ((moment - t0_us) / 1e6 for moment in (fault.start_us, fault.end_us))
            where = ", ".join(fault.devices or fault.gateways) or fault.district or "everywhere"
            expected = (
                f" -> {fault.expected_rule or 'no shipped rule'} {fault.expected_level}" if fault.expected_level else ""
            )
            print(f"{first:9.0f} s to {last:9.0f} s  {fault.id:24} {where}: {fault.cause}{expected}")
    print(f"seed {settings.seed}", file=sys.stderr)


@app.command()
@command
def describe(
    scenario: ScenarioArgument = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    as_json: JsonOption = False,
    with_texture: Annotated[
        bool, typer.Option("--texture", help="Statistics of two weeks of readings; takes a while.")
    ] = False,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Tell what the city consists of, and what goes wrong in it (times count from the run's start)."""
    settings = load(SimSettings, config, asked(scenario, seed, gateways, inp, geojson))
    simulation = simulation_of(settings, 0)
    facts = layout.describe(simulation.city)
    facts["messages_per_s"] = round(simulation.samples_per_s(), 2)
    facts["faults"] = [fault.to_json() for fault in simulation.faults]
    facts["incidents"] = faults.incidents(simulation.faults)
    figures = texture.of_city(simulation.city) if with_texture else []
    facts["texture"] = figures
    if as_json:
        facts["topology"] = topology.edges(simulation.city, simulation.world.supply)
        print(json.dumps(facts))
        return
    for key in ("seed", "population", "climate", "devices", "series", "messages_per_s"):
        print(f"{key:15} {facts[key]}")
    for gateway, count in _mapping(facts["gateways"]).items():
        print(f"{'gateway':15} {gateway}: {count} devices")
    for kind, about in _mapping(facts["kinds"]).items():
        print(f"{kind:15} {about['devices']} ({about['domain']}): {', '.join(about['metrics'])}")
    for fault in simulation.faults:
        span = f"{fault.start_us / 1e6:g} s to {fault.end_us / 1e6:g} s"
        expected = f": {fault.expected_rule} {fault.expected_level}" if fault.expected_rule else ""
        print(
            f"{'fault':15} {fault.id} at {', '.join(fault.devices or fault.gateways) or 'the city'}, {span}{expected}"
        )
    for row in figures:
        print("texture         " + ", ".join(f"{key} {value}" for key, value in row.items()))


@app.command("map")
@command
def draw_map(
    config: ConfigOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Print the city as GeoJSON: districts, river, tunnel, streets, pipes with their direction, devices."""
    simulation = simulation_of(load(SimSettings, config, asked("calm", seed, gateways, inp, geojson)), 0)
    print(json.dumps(topology.geojson(simulation.city, simulation.world.supply)))


@app.command()
@command
def plot(
    scenario: ScenarioArgument = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    start: StartOption = None,
    duration: DurationOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("plots"),
    days: Annotated[
        bool, typer.Option("--days", help="Two days of every kind of device instead of the scenario.")
    ] = False,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Draw what every fault of a scenario does, or days of every kind of device (needs the extra `plot`)."""
    settings = load(SimSettings, config, asked("calm" if days else scenario, seed, None, inp, geojson))
    t0_us, t1_us = _span_us(settings, start, 2 * 86_400.0 if days and duration is None else duration)
    simulation = simulation_of(settings, t0_us, (t1_us - t0_us) / 1e6)
    draw = plots.days if days else plots.faults
    for path in draw(simulation, scenarios.find(settings.scenario).name, t0_us, t1_us, out):
        print(path)


@app.command()
@command
def devices(
    config: ConfigOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    as_json: JsonOption = False,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """List the devices; with --json as registration documents, one a line."""
    settings = load(SimSettings, config, asked(None, seed, gateways, inp, geojson))
    period_ms = settings.sampling.period_ms()
    for device in city_of(settings).devices:
        if as_json:
            print(json.dumps(device.registration(period_ms[device.kind] / 1000)))
        else:
            print(
                f"{device.name:12} {device.kind:14} {device.gateway:8} {device.district:11} {device.lon} {device.lat}"
            )


def _span_us(settings: SimSettings, start: str | None, duration: float | None) -> tuple[int, int]:
    """First moment and end of a run that does not happen now: as asked for, else as the scenario says."""
    chosen = scenarios.find(settings.scenario)
    usual_us = _moment_us(EXPORT_START) if chosen.start_us is None else chosen.start_us
    t0_us = usual_us if start is None else _moment_us(start)
    return t0_us, t0_us + round((duration or chosen.file.duration_s) * 1e6)


def _live(settings: SimSettings, start_us: int | None, duration: float | None, truth_path: Path | None) -> None:
    first_us = _live_start_us(settings, start_us, duration, time.time_ns() // 1000)
    end_us = None if duration is None else first_us + round(duration * 1e6)
    simulation = simulation_of(settings, first_us, duration or LIVE_HORIZON_S)
    plan = live.LiveRun(simulation, settings, first_us, end_us, truth_path)
    asyncio.run(_until_signal(plan))


async def _until_signal(plan: live.LiveRun) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await live.play(plan, stop)


def _live_start_us(settings: SimSettings, start_us: int | None, duration: float | None, now_us: int) -> int:
    """When the city's clock starts: now in real time; else so that it meets the wall clock at the end."""
    if settings.speed == 1.0:
        if start_us is not None:
            raise ConfigError(["--start: at real-time speed the city's time is now; give --speed or --out as well"])
        return now_us + LEAD_US
    if start_us is not None:
        return start_us
    if settings.speed < 1.0:
        return now_us
    if duration is None:
        raise ConfigError(["--speed above 1 needs --duration or --start: readings from the future would be refused"])
    return now_us - round(duration * 1e6 * (1.0 - 1.0 / settings.speed))


def _export(
    settings: SimSettings, start: str | None, duration: float | None, truth_path: Path | None, out: Path
) -> None:
    t0_us, t1_us = _span_us(settings, start, duration)
    simulation = simulation_of(settings, t0_us, (t1_us - t0_us) / 1e6)
    writer = TruthWriter(truth_path)  # the faults; the messages themselves are in the file
    writer.header(live.header(simulation, settings, t0_us))
    messages, readings = export.write(simulation, t0_us, t1_us, out, _Progress())
    writer.end(End(0, 0, 0, 0))
    print(f"seed {settings.seed}: {messages} messages, {readings} readings in {out}", file=sys.stderr)


def _store(
    settings: SimSettings, config: Path | None, start: str | None, duration: float | None, truth_path: Path | None
) -> None:
    t0_us, t1_us = _span_us(settings, start, duration)
    simulation = simulation_of(settings, t0_us, (t1_us - t0_us) / 1e6)
    writer = TruthWriter(truth_path)
    writer.header(live.header(simulation, settings, t0_us))
    with into_store.open_store(config) as store:
        readings = into_store.write(simulation, t0_us, t1_us, store, _Progress("readings"))
    writer.end(End(0, 0, 0, 0))
    print(f"seed {settings.seed}: {readings} readings in the database", file=sys.stderr)


class _Progress:
    """Says on stderr, every two seconds, how far it is."""

    def __init__(self, what: str = "messages") -> None:
        self._next_s = time.monotonic() + PROGRESS_S
        self._what = what

    def __call__(self, count: int, share: float) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + PROGRESS_S
            print(f"{100 * share:.0f} %, {count} {self._what}", file=sys.stderr)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _moment_us(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError([f"--start {text[:80]!r}: not a date and time in ISO 8601"]) from None
    if moment.tzinfo is None:
        raise ConfigError([f"--start {text[:80]!r}: needs a time zone, such as Z"])
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    if seconds < 0:
        raise ConfigError([f"--start {text[:80]!r}: before 1970"])
    return round(seconds * 1000) * 1000
