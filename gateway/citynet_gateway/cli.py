"""``citynet gateway``: run a gateway, look into its spool."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import Annotated, NoReturn

import typer

from citynet.errors import CitynetError
from citynet.runtime import metrics
from citynet.runtime.command import EXIT_FAILURE, ConfigOption, JsonOption, command, start_logging
from citynet.runtime.settings import load
from citynet_gateway import memory, service, timekeeper
from citynet_gateway.cli_command import command_gateway, config_app
from citynet_gateway.drivers import registry
from citynet_gateway.drivers.port import Context
from citynet_gateway.edge import Edge
from citynet_gateway.inbox import Inbox
from citynet_gateway.intake import Sorter
from citynet_gateway.outputs import registry as outputs
from citynet_gateway.pushed_config import PushedConfig
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool import SegmentSpool, Spool
from citynet_gateway.spool.export import Format as ExportFormat
from citynet_gateway.spool.export import export
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.spool.inspect import EpochState, SegmentView, View, inspect
from citynet_gateway.timekeeper import Timekeeper
from citynet_gateway.uplink import Uplink
from citynet_gateway.window import STREAM_ORDER

app = typer.Typer(no_args_is_help=True, help="Run a field gateway; look into its spool.")
spool_app = typer.Typer(no_args_is_help=True, help="Look into a gateway's spool; also while it runs.")
app.add_typer(spool_app, name="spool")
app.add_typer(config_app, name="config")
app.command("command")(command_gateway)

IdOption = Annotated[str | None, typer.Option("--id", help="This gateway's identifier.")]
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the spool.")]
MetricsPortOption = Annotated[int | None, typer.Option("--metrics-port", help="Prometheus metrics on loopback.")]


@app.command()
@command
def run(
    config: ConfigOption = None,
    ident: IdOption = None,
    data_dir: DataDirOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Take readings from the field, keep them safe, send them to the server."""
    flags = {"id": ident, "data_dir": data_dir, "metrics_port": metrics_port}
    pushed = PushedConfig(LocalFiles(), config, flags, timekeeper.wall_us)
    start_logging(config, "gateway")
    settings = pushed.begin()
    metrics.serve(settings.metrics_port)
    try:
        gateway = build(settings, pushed)
    except CitynetError as error:
        if not pushed.on_trial:
            raise
        pushed.roll_back(str(error))
        begin_anew()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: gateway.stop())
    memory.give_back()
    gateway.run()
    if gateway.wants_restart:
        begin_anew()


def begin_anew() -> NoReturn:
    """The same command again in this process: nothing of the former run is left, whatever hung in it."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (no shell is what we want)


@app.command()
@command
def check(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Try brokers, clock, disk, certificates, drivers and outputs; say what is wrong. Exit 1 if something failed."""
    from citynet_gateway.check import findings  # noqa: PLC0415  (a gateway that runs does not need it)

    settings = load(GatewaySettings, config, {"data_dir": data_dir})
    found = []
    for item in findings(settings):
        found.append(item)
        if not as_json:
            print(f"{item.verdict:8} {item.what}: {item.text}", flush=True)
    failed = any(item.verdict == "failed" for item in found)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [item.as_dict() for item in found]}, ensure_ascii=False))
    if failed:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
@command
def top(
    config: ConfigOption = None,
    metrics_port: MetricsPortOption = None,
    once: Annotated[bool, typer.Option("--once", help="One page, without clearing the terminal.")] = False,
    interval_s: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between pages.")] = 2.0,
) -> None:
    """A running gateway on one page, from its metrics on loopback; Ctrl-C ends it."""
    from citynet_gateway import top as screen  # noqa: PLC0415

    port = load(GatewaySettings, config, {"metrics_port": metrics_port}).metrics_port
    if not port:
        raise CitynetError("gateway.metrics_port is 0: set it, and let the gateway run with it")
    if once:
        print(screen.page(screen.fetch(port), {}, 0.0, width=200))
        return
    screen.watch(port, interval_s)


def build(settings: GatewaySettings, pushed: PushedConfig) -> service.Gateway:
    """Open the spool and wire the parts together; nothing is connected yet.

    Raises:
        CitynetError: the data folder cannot be used, or another process does.
    """
    random = Random(secrets.randbits(64))  # noqa: S311  (jitter and references, no secrets)
    files = LocalFiles()
    try:
        spool = _open_spool(settings, files)
    except OSError as error:
        raise CitynetError(f"gateway data_dir {settings.data_dir}: {error.strerror or error}") from None
    held = {span.epoch for stream in STREAM_ORDER for span in spool.spans(stream)}
    clock = Timekeeper(
        files, settings.data_dir / "clock", settings.clock_mode, settings.clock_wait_s, spool.epoch, held
    )
    sorter = Sorter(tuple(settings.alarm_metrics))
    drivers = registry.build(
        Context(settings, files, clock.utc_us, time.monotonic, random, sorter, stamp_us=clock.stamp_us)
    )
    edge = Edge(settings, files, spool.epoch, clock, outputs.build(settings, drivers), pushed)
    inbox = Inbox(edge.tap)
    uplink = Uplink(settings.id, settings.uplink, inbox.put_uplink, random)
    gateway = service.Gateway(settings, spool, drivers, inbox, uplink, random, edge)
    edge.attach(drivers, uplink.send_result, gateway.restart)
    uplink.on_command = edge.command
    return gateway


def _open_spool(settings: GatewaySettings, files: LocalFiles) -> Spool:
    if settings.spool == "segments":
        return SegmentSpool(settings.spool_dir, settings.spool_settings(), service.new_epoch(), files)
    from citynet_gateway.spool.sqlite import SqliteSpool  # noqa: PLC0415  (a gateway on segment files does not need it)

    return SqliteSpool(settings.spool_dir, settings.spool_settings(), service.new_epoch(), files)


def _view(settings: GatewaySettings) -> View:
    from citynet_gateway.spool.sqlite import DATABASE, SqliteView  # noqa: PLC0415

    folder = settings.spool_dir
    return SqliteView(folder) if (folder / DATABASE).exists() else SegmentView(LocalFiles(), folder)


@spool_app.command("status")
@command
def spool_status(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """What the spool holds, per epoch and stream; reads only."""
    _show(config, data_dir, as_json, verify=False)


@spool_app.command("verify")
@command
def spool_verify(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Read every record and its checksum; exit 1 if any is damaged or missing. Reads only."""
    if _show(config, data_dir, as_json, verify=True):
        raise typer.Exit(1)


@spool_app.command("export")
@command
def spool_export(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    how: Annotated[
        ExportFormat, typer.Option("--format", help="csv, jsonl: a record a line; batches: for POST.")
    ] = "csv",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A new file instead of the terminal.")] = None,
) -> None:
    """Write out every record that the server has not acknowledged; also while the gateway runs. Reads only."""
    settings = load(GatewaySettings, config, {"data_dir": data_dir})
    try:
        with contextlib.nullcontext(sys.stdout) if output is None else output.open("x", encoding="utf-8") as out:
            count = export(_view(settings), settings.id, how, out)
    except FileExistsError:
        raise CitynetError(f"{output}: exists already") from None
    except OSError as error:
        raise CitynetError(f"{error.filename or settings.spool_dir}: {error.strerror or error}") from None
    print(f"{count} records", file=sys.stderr)


def _show(config: Path | None, data_dir: Path | None, as_json: bool, *, verify: bool) -> int:
    settings = load(GatewaySettings, config, {"data_dir": data_dir})
    try:
        states = inspect(_view(settings), verify=verify)
    except FileNotFoundError:
        raise CitynetError(f"{settings.spool_dir}: no spool here") from None
    except OSError as error:
        raise CitynetError(f"{settings.spool_dir}: {error.strerror or error}") from None
    lost = sum(state.lost for state in states)
    if as_json:
        print(json.dumps({"epochs": [state.as_dict() for state in states], "lost": lost}))
    else:
        for state in states:
            print(_line(state, verify=verify))
        print(
            f"{len(states)} epochs, {sum(state.held for state in states)} records held"
            + (f", {lost} lost" if verify else "")
        )
    return lost


def _line(state: EpochState, *, verify: bool) -> str:
    text = f"{state.stream:9} {state.epoch:016d}  accepted {state.last}  acknowledged {state.acked}  held {state.held}"
    return f"{text}  lost {state.lost}" if verify else text
