"""``citynet ingest``: run the ingest tier."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from citynet.runtime import log, metrics
from citynet.runtime.command import ConfigOption, command, start_logging
from citynet.runtime.settings import BrokerSettings, DatabaseSettings, load
from citynet_ingest.lanes import LANES, dealt, lanes_of, shards_text
from citynet_ingest.ownership import StoppedError
from citynet_ingest.push.settings import PushSettings
from citynet_ingest.rearm import files_of
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.supervisor import Supervisor
from citynet_ingest.worker import Worker, prepare_database
from citynet_rules.lint import armable
from citynet_rules.spec import RuleSet

_log = log.get("ingest")
app = typer.Typer(no_args_is_help=True, help="Run the ingest tier.")


@app.callback()
def ingest() -> None:
    """The ingest tier: broker to database, exactly once, with the rules in the same pass."""


def _whole_lanes(text: str | None) -> str | None:
    """The option as it is, or a usage error."""
    if text is not None:
        try:
            lanes_of(parse_shards(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return text


@app.command()
@command
def run(
    config: ConfigOption = None,
    shards: Annotated[
        str | None, typer.Option(callback=_whole_lanes, help="Shards to own: LOW-HIGH, whole lanes of 8.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=LANES, help="Processes that share the shards.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Prometheus port on loopback, the first of several workers'; 0: none.")
    ] = None,
) -> None:
    """Run one worker, or several, until SIGTERM. Migrates the schema first."""
    settings = load(IngestSettings, config, {"shards": shards, "workers": workers, "metrics_port": metrics_port})
    broker = load(BrokerSettings, config)
    database = load(DatabaseSettings, config)
    start_logging(config, f"ingest-{settings.worker}")

    def read_rules() -> RuleSet:
        """As settings and files are now."""
        return armable(files_of(load(IngestSettings, config)))

    rules = read_rules()
    if settings.workers > 1:
        raise typer.Exit(_supervise(settings, config))
    metrics.serve(settings.metrics_port)
    asyncio.run(_serve(settings, broker, database, rules, read_rules))


def _supervise(settings: IngestSettings, config: Path | None) -> int:
    """Run a process for each part of the shards; returns the exit code."""
    supervisor = Supervisor()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGHUP, lambda *_: supervisor.reload())
    own = [sys.executable, "-m", "citynet", "ingest", "run", "--workers", "1"]
    own += ["--config", str(config)] if config is not None else []
    port = settings.metrics_port
    commands = []
    for position, part in enumerate(dealt(parse_shards(settings.shards), settings.workers)):
        of_worker = ["--shards", shards_text(part), "--metrics-port", str(port + position if port else 0)]
        commands.append((shards_text(part), [*own, *of_worker]))
    if port:
        metrics.serve(port + len(commands))
    return supervisor.run(commands)


@app.command("http")
@command
def serve_http(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Take batches and pushed messages over HTTP until SIGTERM; answer 200 after COMMIT."""
    from citynet_ingest.push import server  # noqa: PLC0415  (a worker does not load a web server)

    settings = load(PushSettings, config, {"host": host, "port": port})
    broker = load(BrokerSettings, config)
    database = load(DatabaseSettings, config)
    start_logging(config, "push")
    metrics.serve(settings.metrics_port)
    server.run(settings, broker, database.conninfo())


async def _serve(
    settings: IngestSettings,
    broker: BrokerSettings,
    database: DatabaseSettings,
    rules: RuleSet,
    read_rules: Callable[[], RuleSet],
) -> None:
    loop = asyncio.get_running_loop()
    waiting = threading.Event()
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a reload before there is a worker: it reads the files anyway
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, waiting.set)
    try:
        await asyncio.to_thread(prepare_database, database, waiting)
    except StoppedError as error:
        _log.info("stopped-waiting", reason=str(error))
        return
    if waiting.is_set():
        return
    worker = Worker(settings, broker, database, rules)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    loop.add_signal_handler(signal.SIGHUP, worker.reload, read_rules)
    await worker.run()
