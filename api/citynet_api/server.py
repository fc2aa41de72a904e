"""The process: one listening socket, uvicorn on it, and a stop that is quick although event streams never end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping
from typing import Any

import uvicorn

from citynet.errors import CitynetError
from citynet.runtime import http, log
from citynet_api.app import create_app, parts_of
from citynet_api.settings import ApiSettings

_CONCURRENT_MAX = 2000


async def serve(settings: ApiSettings, conninfo: Mapping[str, Any], listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then end the streams, give requests in flight `stop_s`, and return.

    Raises:
        CitynetError: a watcher failed; started again, it has its chance anew.
    """
    failed: list[str] = []

    def fail(watcher: str) -> None:
        failed.append(watcher)
        stop()

    app = create_app(settings, conninfo, fail)
    server = http.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            limit_concurrency=_CONCURRENT_MAX,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=max(1, round(settings.stop_s)),
        )
    )

    def stop() -> None:
        parts_of(app).feed.stop()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    log.get(__name__).info("listening", url=http.url_of(listener))
    await server.serve(sockets=[listener])
    if failed:
        raise CitynetError(f"api: the watcher {failed[0]} failed; the log has it")
    log.get(__name__).info("stopped")


def run(settings: ApiSettings, conninfo: Mapping[str, Any]) -> None:
    """Listen, then serve."""
    listener = http.listen(settings.host, settings.port, "api")
    http.bridge_library_logs()
    with contextlib.closing(listener):
        asyncio.run(serve(settings, conninfo, listener))
