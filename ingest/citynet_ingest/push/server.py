"""The process of the HTTP front: one listening socket, uvicorn on it, one session with the broker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette

from citynet.errors import ConfigError
from citynet.runtime import http, log
from citynet.runtime.settings import BrokerSettings
from citynet_ingest.push.app import Front
from citynet_ingest.push.courier import Courier
from citynet_ingest.push.settings import PushSettings
from citynet_ingest.push.tokens import Door

_CONNECTIONS_MAX = 2_000
_log = log.get("push")


def run(settings: PushSettings, broker: BrokerSettings, conninfo: Mapping[str, Any]) -> None:
    """Listen, then serve until SIGTERM or SIGINT. ConfigError for a certificate that cannot be used."""
    _check_certificate(settings)
    listener = http.listen(settings.host, settings.port, "push")
    http.bridge_library_logs()
    with contextlib.closing(listener):
        asyncio.run(_serve(settings, broker, conninfo, listener))


def _check_certificate(settings: PushSettings) -> None:
    if settings.tls_cert_file is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert_file, settings.tls_key_file
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"push tls_cert_file {settings.tls_cert_file}: {error}"]) from None


def _config(settings: PushSettings, app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=max(1, round(settings.stop_s)),
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=str(settings.tls_key_file) if settings.tls_key_file else None,
    )


async def _serve(
    settings: PushSettings, broker: BrokerSettings, conninfo: Mapping[str, Any], listener: socket.socket
) -> None:
    courier, door = Courier(broker), Door(conninfo, settings.token_cache_s)
    server = http.Server(_config(settings, Front(settings, courier, door).app()))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    await door.open()
    session = asyncio.create_task(courier.run(), name="mqtt-session")
    session.add_done_callback(lambda _: setattr(server, "should_exit", True))  # a front without its session is none
    _log.info("listening", url=http.url_of(listener, "https" if settings.tls_cert_file else "http"))
    try:
        await server.serve(sockets=[listener])
    finally:
        courier.close()
        await session
        await door.close()
    _log.info("stopped")
