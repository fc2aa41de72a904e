"""``citynet ingest``: run the ingest tier."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Annotated

import typer

from citynet.runtime import metrics
from citynet.runtime.command import ConfigOption, command, start_logging
from citynet.runtime.settings import BrokerSettings, DatabaseSettings, load
from citynet_ingest.push.settings import PushSettings
from citynet_ingest.settings import IngestSettings
from citynet_ingest.worker import Worker, prepare_database
from citynet_rules.spec import RuleSet, library_paths, load_rules

app = typer.Typer(no_args_is_help=True, help="Run the ingest tier.")


@app.callback()
def ingest() -> None:
    """The ingest tier: broker to database, exactly once, with the rules in the same pass."""


@app.command()
@command
def run(
    config: ConfigOption = None,
    shards: Annotated[str | None, typer.Option(help="Shards to own: LOW-HIGH.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus port on loopback; 0: none.")] = None,
) -> None:
    """Run one worker until SIGTERM. Migrates the schema first."""
    settings = load(IngestSettings, config, {"shards": shards, "metrics_port": metrics_port})
    broker = load(BrokerSettings, config)
    database = load(DatabaseSettings, config)
    start_logging(config, f"ingest-{settings.worker}")
    rules = load_rules([*(library_paths() if settings.shipped_rules else []), *settings.rules])
    metrics.serve(settings.metrics_port)
    asyncio.run(_serve(settings, broker, database, rules))


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


async def _serve(settings: IngestSettings, broker: BrokerSettings, database: DatabaseSettings, rules: RuleSet) -> None:
    loop = asyncio.get_running_loop()
    waiting = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, waiting.set)
    await asyncio.to_thread(prepare_database, database, waiting)
    worker = Worker(settings, broker, database, rules)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()
