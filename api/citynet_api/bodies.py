"""Reading a request's body within a bound."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citynet_api.problems import Problem


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Problem 413 as soon as it is longer than `bytes_max`."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise too_large(bytes_max)
        parts.append(part)
    return b"".join(parts)


def too_large(bytes_max: int) -> Problem:
    """A 413 that names the bound."""
    return Problem("body-too-large", f"At most {bytes_max} bytes.", headers={"Connection": "close"})


class BodyLimit:
    """ASGI middleware: no handler ever reads more than `bytes_max` of a body, except those that bound it themselves."""

    def __init__(self, app: ASGIApp, bytes_max: int, own_bound: frozenset[str]) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._own_bound = own_bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._own_bound:
            await self._app(scope, receive, send)
            return
        size = 0

        async def receive_within() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._bytes_max:
                # The framework lets only its own error pass here; it is answered as the same problem.
                raise HTTPException(413, f"At most {self._bytes_max} bytes.", {"Connection": "close"})
            return message

        await self._app(scope, receive_within, send)
