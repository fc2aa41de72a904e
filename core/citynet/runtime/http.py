"""What the HTTP servers share: a listening socket, uvicorn without its own signal handling, one format of logs.

Imports uvicorn, so only server roles may import it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn

from citynet.errors import CitynetError
from citynet.runtime import log

_CUT_OFF = "ASGI callable returned without completing response"
_BACKLOG = 512


class ListenError(CitynetError):
    """The address cannot be listened on; the message says which and why."""


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: it would raise the signal again afterwards, and a stop is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _ToOurLog(logging.Handler):
    """Hands warnings of the libraries to our log, so that a log has one format."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_CUT_OFF):  # a client that stopped reading
            return
        if record.exc_info and record.exc_info[1] is not None:
            log.get(record.name).error("library-error", text=text, exc_info=record.exc_info)
        else:
            log.get(record.name).warning("library-warning", text=text)


def listen(host: str, port: int, role: str) -> socket.socket:
    """A listening socket. ListenError, in one line, if the port is taken or the address is not ours."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"{role}: cannot listen on {host}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"{role}: cannot listen on {host} port {port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a client finds it."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def bridge_library_logs() -> None:
    """Send the libraries' warnings to our log. The pool's are left out: an outage is logged once, by us."""
    root = logging.getLogger()
    root.handlers = [_ToOurLog(logging.WARNING)]
    root.setLevel(logging.WARNING)
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
