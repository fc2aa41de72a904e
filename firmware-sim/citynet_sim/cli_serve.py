"""Command ``citynet sim serve``: some devices of the city, each live on its own protocol."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from citynet.errors import ConfigError
from citynet.runtime.command import ConfigOption, command, start_logging
from citynet.runtime.settings import load
from citynet_sim import city as layout
from citynet_sim import live
from citynet_sim.cli_register import GatewaysOption, GeojsonOption, InpOption, SeedOption
from citynet_sim.firmware.fleet import DEVICES_MAX, TREE_NAME, Fleet, Member, Place, wall_us
from citynet_sim.firmware.journal import FleetJournal
from citynet_sim.firmware.machine import ConfigurationError, Options
from citynet_sim.firmware.polled import thermometer
from citynet_sim.firmware.port import PROTOCOLS
from citynet_sim.firmware.tables import gateway_tables
from citynet_sim.settings import SimSettings, asked
from citynet_sim.staging import simulation_of
from citynet_sim.truth import TruthWriter

_MODBUS_PORT = 5020  # 502 is for root


@command
def serve(
    devices: Annotated[list[str], typer.Argument(help=f"DEVICE=PROTOCOL …; protocols: {', '.join(PROTOCOLS)}.")],
    *,
    config: ConfigOption = None,
    scenario: Annotated[str | None, typer.Option(help="What goes wrong meanwhile.")] = "calm",
    seed: SeedOption = None,
    gateways: GatewaysOption = None,
    broker_host: Annotated[str | None, typer.Option(help="The field broker; for chirpstack the server's.")] = None,
    broker_port: Annotated[int | None, typer.Option()] = None,
    hj212_host: Annotated[str, typer.Option(help="Where HJ 212 stations connect to.")] = "127.0.0.1",
    hj212_port: Annotated[int, typer.Option()] = 9212,
    modbus_port: Annotated[int, typer.Option(help="Where Modbus TCP listens, on loopback.")] = _MODBUS_PORT,
    folder: Annotated[
        Path | None, typer.Option(help="For the serial line `ttySIM` and the sensors' tree `sys`.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=NUMBER of the firmware, such as heartbeat_s=60 or deadband.ch4_lel=0.5."),
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Seconds; else until stopped.")] = None,
    truth_path: Annotated[Path | None, typer.Option("--truth", help="Write the ground truth to this new file.")] = None,
    tables: Annotated[
        bool, typer.Option("--gateway-toml", help="Print the gateway's settings that fit, and end.")
    ] = False,
    inp: InpOption = None,
    geojson: GeojsonOption = None,
) -> None:
    """Let devices of the city speak their own protocols, in real time, for a real gateway to hear."""
    endpoint = {k: v for k, v in {"host": broker_host, "port": broker_port}.items() if v is not None}
    flags = asked(scenario, seed, gateways, inp, geojson) | {"broker": endpoint or None}
    settings = load(SimSettings, config, flags)
    start_us = wall_us()
    simulation = simulation_of(settings, start_us)
    members, options = chosen(simulation.city, devices), options_of(option or [])
    with contextlib.ExitStack() as stack:
        if folder is None:
            where = Path(tempfile.gettempdir()) if tables else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            where = folder.resolve()
            where.mkdir(parents=True, exist_ok=True)
        place = Place(where, hj212_host, hj212_port, modbus_port)
        if tables:
            print(_toml(members, place))
            return
        start_logging(config, "sim")
        writer = TruthWriter(truth_path)
        writer.header(live.header(simulation, settings, start_us))
        journal = FleetJournal(writer)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with Fleet(members, simulation, settings, place, journal, options) as fleet:
            print(f"{len(members)} devices, seed {settings.seed}; folder {where}", file=sys.stderr)
            _watch(fleet, stop, duration)
        end = journal.end()
        print(
            f"{end.sent} reports, {end.acked} acknowledged, {end.lost} given up; {journal.tally.shown} values read or shown"
        )
    if (error := fleet.failure()) is not None:
        raise error


def _watch(fleet: Fleet, stop: threading.Event, duration: float | None) -> None:
    """Until stopped, the time is over, or a device had to end."""
    deadline_s = None if duration is None else time.monotonic() + duration
    while not stop.wait(0.1):
        if fleet.failure() is not None or (deadline_s is not None and time.monotonic() >= deadline_s):
            return


def chosen(city: layout.City, words: list[str]) -> list[Member]:
    """The devices named ``DEVICE=PROTOCOL``. ConfigError: every mistake, one line each."""
    by_name = {device.name: device for device in city.devices}
    members: list[Member] = []
    problems: list[str] = []
    units: dict[str, int] = {}
    for word in words:
        name, _, protocol = word.partition("=")
        if protocol not in PROTOCOLS:
            problems.append(f"{word[:80]!r}: needs =PROTOCOL, one of {', '.join(PROTOCOLS)}")
        elif name not in by_name:
            problems.append(f"{name[:80]!r} is not a device of this city (see `citynet sim devices`)")
        elif name in [member.device.name for member in members]:
            problems.append(f"{name}: there twice")
        else:
            if protocol == "onewire":
                thermometer(by_name[name])
            units[protocol] = units.get(protocol, 0) + 1
            members.append(Member(by_name[name], protocol, units[protocol]))
    if len(words) > DEVICES_MAX:
        problems.append(f"{len(words)} devices, at most {DEVICES_MAX}")
    if problems:
        raise ConfigError(problems)
    return members


def options_of(words: list[str]) -> Options:
    """The firmware's options from ``KEY=NUMBER``. ConfigError: one that makes no sense."""
    changes: dict[str, object] = {}
    deadband: dict[str, float] = {}
    for word in words:
        key, _, text = word.partition("=")
        try:
            number = float(text)
        except ValueError:
            raise ConfigError([f"--option {word[:80]!r}: needs KEY=NUMBER"]) from None
        if key.startswith("deadband."):
            deadband[key.removeprefix("deadband.")] = number
        else:
            changes[key] = int(number) if key == "buffer_max" and number.is_integer() else number
    try:
        return Options().changed(changes | ({"deadband": deadband} if deadband else {}))
    except ConfigurationError as error:
        raise ConfigError([f"--option {error}"]) from None


def _toml(members: list[Member], place: Place) -> str:
    files = [member for member in members if member.protocol in ("iio", "onewire")]
    head = f"[gateway]\nsysfs = '{place.folder / TREE_NAME}'\n\n" if files else ""
    return head + gateway_tables(
        members, port=place.modbus_port, serial=place.folder / "ttySIM", hj212_port=place.hj212_port
    )
