"""The application: ``POST /v1/batches`` and ``POST /v1/push/{source}``, answered 200 only after COMMIT."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from citynet import formats, topics, wire
from citynet.control import KEY_REUSED, Outcome
from citynet_ingest import metrics
from citynet_ingest.push.courier import AwayError, Courier, NoAnswerError
from citynet_ingest.push.gate import Gate
from citynet_ingest.push.problems import MEDIA_TYPE, Problem
from citynet_ingest.push.settings import PushSettings
from citynet_ingest.push.tokens import Door
from citynet_ingest.sources import content_type

_BATCH_TYPES = {
    wire.CBOR: wire.CBOR, wire.JSON: wire.JSON, "application/cbor": wire.CBOR, "application/json": wire.JSON,
}  # fmt: skip
_KEY = re.compile(r"[ -~]{1,255}")
_REST_BYTES_MAX = 4 << 20  # of a body that is too large, read and thrown away before the answer
_REST_S_MAX = 2.0
_BY_STATUS = {404: "not-found", 405: "method-not-allowed"}
Handler = Callable[[Request], Awaitable[Response]]


class Front:
    """The handlers, and what they share."""

    def __init__(self, settings: PushSettings, courier: Courier, door: Door) -> None:
        self._settings = settings
        self._courier = courier
        self._door = door
        self._gate = Gate(settings)
        self._sources = {source.name: source for source in settings.sources}

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/batches", _watched("batches", self.batches), methods=["POST"]),
                Route("/v1/push/{source}", _watched("push", self.push), methods=["POST"]),
                Route("/health", self.health),
                Route("/ready", self.ready),
            ],
            exception_handlers={HTTPException: _on_http, Exception: _on_surprise},
        )

    async def health(self, request: Request) -> Response:
        """The process lives."""
        del request
        return JSONResponse({"ok": True})

    async def ready(self, request: Request) -> Response:
        """The broker is there."""
        if not self._courier.is_connected:
            return respond(request, Problem("broker-away", "Not connected to the broker."))
        return JSONResponse({"ok": True})

    async def batches(self, request: Request) -> Response:
        """A batch envelope of the gateway that the token names: class A over HTTP."""
        gateway = await self._door.source_of(request.headers.get("authorization"))
        given = formats.bare(request.headers.get("content-type", ""))
        kind = _BATCH_TYPES.get(given)
        if kind is None:
            raise Problem("unsupported-media-type", f"{given[:80]!r}: a batch is {wire.CBOR} or {wire.JSON}")
        outcome = await self._brought(request, gateway, topics.up(gateway), kind, None, self._settings.batch_bytes_max)
        return _of_batch(outcome)

    async def push(self, request: Request) -> Response:
        """A message of a platform or device, in one of the device formats."""
        source = request.path_params["source"]
        if await self._door.source_of(request.headers.get("authorization")) != source:
            raise Problem("forbidden", "The token is not that of the source in the path.")
        known = self._sources.get(source)
        kind = content_type(request.headers.get("content-type", ""), known.format if known else "")
        kind = kind or request.headers.get("content-type", "")
        if not formats.is_known(kind):
            raise Problem("unsupported-media-type", f"{kind[:80]!r} is no known format, and none is configured")
        key = request.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            raise Problem("bad-request", "Idempotency-Key: 1 to 255 printable ASCII characters.")
        name = f"key:{key}" if key is not None else "body" if known and known.dedupe == "body" else None
        topic = topics.push(source)
        outcome = await self._brought(request, source, topic, kind, name, self._settings.push_bytes_max)
        if outcome.reason == KEY_REUSED:
            raise Problem(KEY_REUSED, "This body is kept as a dead letter; use a new key for a new message.")
        return JSONResponse(_plain(outcome))

    async def _brought(
        self, request: Request, source: str, topic: str, kind: str, key: str | None, bytes_max: int
    ) -> Outcome:
        """What became of the request's body. A `key` of ``body`` stands for the body's hash."""
        try:
            announced_bytes = _announced(request, bytes_max)
        except Problem as problem:
            if problem.kind == "body-too-large":
                await _pass_over(request)
            raise
        with self._gate.entered(source, announced_bytes):
            body = await self._read(request, bytes_max)
            if key == "body":
                key = f"body:{blake2b(body, digest_size=16).hexdigest()}"
            try:
                return await self._courier.send(topic, body, kind, key, self._settings.answer_s)
            except AwayError:
                raise Problem("broker-away", "Nothing was taken; try again shortly.") from None
            except NoAnswerError:
                detail = "It may have been stored or may still be. The same Idempotency-Key makes sending again safe."
                if topic == topics.up(source):
                    detail = "It may have been stored or may still be. Send it again: its numbers make that safe."
                raise Problem("no-answer", detail) from None

    async def _read(self, request: Request, bytes_max: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.read_s):
                async for part in request.stream():
                    size += len(part)
                    if size <= bytes_max:
                        parts.append(part)
                    elif size > bytes_max + _REST_BYTES_MAX:
                        break
        except TimeoutError:
            raise Problem("slow-body", f"The body was not here within {self._settings.read_s:g} s.") from None
        except ClientDisconnect:
            raise Problem("bad-request", "The connection was closed before the end of the body.") from None
        if not size:
            raise Problem("bad-request", "The body is empty.")
        if size > bytes_max:
            raise _too_large(bytes_max)
        return b"".join(parts)


def _announced(request: Request, bytes_max: int) -> int:
    """How large the body will be at most. Problem 413 if it says itself that it is too large, 415 if it is compressed."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "Send the body without a content encoding.")
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return bytes_max
    if int(length[:20]) > bytes_max:
        raise _too_large(bytes_max)
    return int(length)


def _too_large(bytes_max: int) -> Problem:
    return Problem("body-too-large", f"At most {bytes_max} bytes.")


def _of_batch(outcome: Outcome) -> Response:
    """200 when the batch is covered by its cursor (as readings or dead letters), 409 for a gap, 422 if it has no numbers."""
    ack = outcome.ack
    if ack is None:
        more = {"reason": outcome.reason, "where": outcome.where}
        raise Problem("unreadable-batch", "It is kept as a dead letter; sending it again changes nothing.", more)
    plain = msgspec.structs.asdict(ack)
    del plain["ref"]
    if ack.why == "gap":
        raise Problem("gap", f"Nothing was stored; go on from sequence number {ack.seq + 1}.", plain)
    return JSONResponse({**plain, **_plain(outcome)})


def _plain(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON, without its acknowledgement, and without a reason where nothing was refused."""
    plain: dict[str, Any] = {
        "stored": outcome.stored,
        "dead_lettered": outcome.dead_lettered,
        "duplicate": outcome.duplicate,
    }
    return {**plain, "reason": outcome.reason, "where": outcome.where} if outcome.reason else plain


def _watched(path: str, handler: Handler) -> Handler:
    """The handler with its problems answered, counted and timed."""

    async def answer(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = await handler(request)
        except Problem as problem:
            response = respond(request, problem)
        metrics.PUSH_REQUESTS.labels(path, str(response.status_code)).inc()
        metrics.PUSH_S.labels(path).observe(time.perf_counter() - started)
        return response

    return answer


async def _pass_over(request: Request) -> None:
    """Read on for a little. A connection that is closed with bytes unread is reset, and its client may never see the answer.
    Whoever waits to be told to go on has sent nothing yet."""
    if "expect" in request.headers:
        return
    left_bytes = _REST_BYTES_MAX
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_REST_S_MAX):
            async for part in request.stream():
                left_bytes -= len(part)
                if left_bytes < 0:
                    return


def respond(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that carries a problem. A body that was not read to its end goes with its connection."""
    more = {"Connection": "close"} if problem.kind in ("body-too-large", "slow-body") else {}
    return JSONResponse(
        problem.body(request.url.path),
        int(problem.status),
        headers={**problem.headers(), **more, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    kind = _BY_STATUS.get(error.status_code, "bad-request")
    return respond(request, Problem(kind, str(error.detail)), error.headers)


async def _on_surprise(request: Request, error: Exception) -> Response:
    """A mistake of ours. The framework logs the traceback; the answer tells a stranger nothing of it."""
    del error
    return respond(request, Problem("internal", "The details are in the server's log."))
