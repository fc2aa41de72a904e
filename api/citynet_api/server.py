"""The process: one listening socket, uvicorn on it, and a stop that is quick although event streams never end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import uvicorn

from citynet.errors import CitynetError
from citynet.runtime import log
from citynet_api.app import create_app, parts_of
from citynet_api.settings import ApiSettings

_CUT_OFF = "ASGI callable returned without completing response"
_BACKLOG = 512
_CONCURRENT_MAX = 2000


class ListenError(CitynetError):
    """The address cannot be listened on; the message says which and why."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: it would raise the signal again afterwards, and a stop is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _ToStructlog(logging.Handler):
    """Hands warnings of the libraries to our log, so that a log has one format."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_CUT_OFF):  # a client that stopped reading; counted, see routes.stream
            return
        if record.exc_info and record.exc_info[1] is not None:
            log.get(record.name).error("library-error", text=text, exc_info=record.exc_info)
        else:
            log.get(record.name).warning("library-warning", text=text)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. ListenError, in one line, if the port is taken or the address is not ours."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"api: cannot listen on {host}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"api: cannot listen on {host} port {port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def bridge_library_logs() -> None:
    """Send warnings of uvicorn and sse-starlette to our log. The pool's are left out: an outage is logged once, by us."""
    root = logging.getLogger()
    root.handlers = [_ToStructlog(logging.WARNING)]
    root.setLevel(logging.WARNING)
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


async def serve(settings: ApiSettings, conninfo: Mapping[str, Any], listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then end the streams, give requests in flight `stop_s`, and return."""
    app = create_app(settings, conninfo)
    server = _Server(
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
    log.get(__name__).info("listening", url=url_of(listener))
    await server.serve(sockets=[listener])
    log.get(__name__).info("stopped")


def run(settings: ApiSettings, conninfo: Mapping[str, Any]) -> None:
    """Listen, then serve."""
    listener = listen(settings.host, settings.port)
    bridge_library_logs()
    with contextlib.closing(listener):
        asyncio.run(serve(settings, conninfo, listener))
