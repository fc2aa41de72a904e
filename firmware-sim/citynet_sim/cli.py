"""Command ``citynet sim``: play the simulated city, or tell about it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.errors import ConfigError
from citynet.runtime.command import ConfigOption, JsonOption, command, start_logging
from citynet.runtime.settings import load
from citynet_sim import city as layout
from citynet_sim import export, live, scenarios
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import Simulation
from citynet_sim.truth import End, TruthWriter

app = typer.Typer(help="Run the simulated city.", no_args_is_help=True)

EXPORT_START = "2026-01-01T00:00:00Z"
EXPORT_DURATION_S = 3600.0
LEAD_US = 1_000_000  # a live city starts a second from now: time to compute the first samples
PROGRESS_S = 2.0

SeedOption = Annotated[int | None, typer.Option("--seed", help="Same seed, same city, same readings.")]
GatewaysOption = Annotated[str | None, typer.Option("--gateways", help="Names of the gateways, separated by commas.")]


@app.command()
@command
def run(
    scenario: Annotated[str | None, typer.Argument(help="See `citynet sim list` (default: demo).")] = None,
    config: ConfigOption = None,
    broker_host: Annotated[str | None, typer.Option(help="The field broker.")] = None,
    broker_port: Annotated[int | None, typer.Option()] = None,
    gateways: GatewaysOption = None,
    seed: SeedOption = None,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds of the city's time.")] = None,
    speed: Annotated[float | None, typer.Option(help="City seconds a second (1: real time).")] = None,
    start: Annotated[str | None, typer.Option(help="First moment, ISO 8601 with zone; not at real-time speed.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Write the ground truth to this new file.")] = None,
    out: Annotated[Path | None, typer.Option(help="No broker: write the readings to this file, at full speed.")] = None,
) -> None:
    """Play the city: to a broker until stopped, or with --out into a file (one hour by default)."""
    flags: dict[str, Any] = {"scenario": scenario, "seed": seed, "speed": speed, "gateways": _names(gateways)}
    flags["broker"] = {k: v for k, v in {"host": broker_host, "port": broker_port}.items() if v is not None} or None
    settings = load(SimSettings, config, flags)
    start_logging(config, "sim")
    start_us = None if start is None else _moment_us(start)
    if out is not None:
        _export(settings, start_us, duration, truth, out)
    else:
        _live(settings, start_us, duration, truth)


@app.command("list")
@command
def list_scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios."""
    if as_json:
        rows = [{"name": s.name, "about": s.about, "incidents": sorted(s.kinds)} for s in scenarios.SCENARIOS.values()]
        print(json.dumps(rows))
        return
    for scenario in scenarios.SCENARIOS.values():
        print(f"{scenario.name:10} {scenario.about}")


@app.command()
@command
def describe(
    scenario: Annotated[str | None, typer.Argument(help="See `citynet sim list`.")] = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what the city consists of, and what goes wrong in it (times count from the run's start)."""
    settings = load(SimSettings, config, {"scenario": scenario, "seed": seed, "gateways": _names(gateways)})
    simulation = simulation_of(settings, 0)
    facts = layout.describe(simulation.city)
    facts["messages_per_s"] = round(simulation.samples_per_s(), 2)
    facts["incidents"] = [incident.to_json() for incident in simulation.incidents]
    if as_json:
        print(json.dumps(facts))
        return
    for key in ("seed", "devices", "series", "messages_per_s"):
        print(f"{key:15} {facts[key]}")
    for gateway, count in _mapping(facts["gateways"]).items():
        print(f"{'gateway':15} {gateway}: {count} devices")
    for kind, about in _mapping(facts["kinds"]).items():
        print(f"{kind:15} {about['devices']} ({about['domain']}): {', '.join(about['metrics'])}")
    for incident in simulation.incidents:
        span = f"{incident.start_us / 1e6:g} s to {incident.end_us / 1e6:g} s"
        expected = f"{incident.expected_rule} {incident.expected_level}"
        print(f"{'incident':15} {incident.id} at {', '.join(incident.devices)}, {span}: {expected}")


@app.command()
@command
def devices(
    config: ConfigOption = None,
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the devices; with --json as registration documents, one a line."""
    settings = load(SimSettings, config, {"seed": seed, "gateways": _names(gateways)})
    for device in layout.build(settings.seed, settings.parameters()).devices:
        if as_json:
            print(json.dumps(device.registration()))
        else:
            print(
                f"{device.name:12} {device.kind:13} {device.gateway:8} {device.district:11} {device.lon} {device.lat}"
            )


def simulation_of(settings: SimSettings, start_us: int) -> Simulation:
    """The simulation that the settings describe, for a run that starts at `start_us` (µs since 1970)."""
    scenario = scenarios.find(settings.scenario)
    city = layout.build(settings.seed, settings.parameters())
    incidents = scenarios.schedule(scenario, city, settings.leak.course(), settings.ponding.course(), start_us)
    return Simulation(city, incidents, settings.sampling.period_ms())


def _live(settings: SimSettings, start_us: int | None, duration: float | None, truth: Path | None) -> None:
    first_us = _live_start_us(settings, start_us, duration, time.time_ns() // 1000)
    end_us = None if duration is None else first_us + round(duration * 1e6)
    plan = live.LiveRun(simulation_of(settings, first_us), settings, first_us, end_us, truth)
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


def _export(settings: SimSettings, start_us: int | None, duration: float | None, truth: Path | None, out: Path) -> None:
    t0_us = _moment_us(EXPORT_START) if start_us is None else start_us
    t1_us = t0_us + round((duration or EXPORT_DURATION_S) * 1e6)
    simulation = simulation_of(settings, t0_us)
    writer = TruthWriter(truth)  # the incidents; the messages themselves are in the file
    writer.header(live.header(simulation, settings, t0_us))
    messages, readings = export.write(simulation, t0_us, t1_us, out, _Progress())
    writer.end(End(0, 0, 0, 0))
    print(f"seed {settings.seed}: {messages} messages, {readings} readings in {out}", file=sys.stderr)


class _Progress:
    """Says on stderr, every two seconds, how far it is."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + PROGRESS_S

    def __call__(self, messages: int, share: float) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + PROGRESS_S
            print(f"{100 * share:.0f} %, {messages} messages", file=sys.stderr)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


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
