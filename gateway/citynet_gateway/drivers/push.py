"""`Driver` for devices and programs that push over HTTP: ``POST /push/{device}``, answered 200 after the sync.

The body is ThingsBoard JSON or SenML, by Content-Type. A body that cannot be decoded at all is refused with 400: over
HTTP the sender is there to be told. Single bad values of a good body are kept as raw notes and counted in the answer.
With an Idempotency-Key a repetition is recognised (like a redelivery on the local broker, among the spool's last
tokens); without one every request is a new message.

Every connection has its own task and its own time; at the bound the connection gives way that has been without a
whole request for longest, so slow senders keep out nobody but each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus

from citynet import formats
from citynet.errors import ConfigError, DecodeError
from citynet.runtime import failpoint, log
from citynet_gateway import metrics
from citynet_gateway.drivers.loop import LoopThread
from citynet_gateway.drivers.port import Context, Offer, Resumed
from citynet_gateway.drivers.push_request import (
    HEAD_BYTES_MAX,
    Doors,
    Head,
    Problem,
    check,
    parse_head,
    refusal,
    response,
)
from citynet_gateway.drivers.push_settings import PushSettings
from citynet_gateway.intake import sort_values, source_token

BODIES_BYTES_MAX = 1 << 20  # bodies that are read or wait for their sync, all together; beyond it 503
BODY_BYTES_MIN = 1 << 10  # what a body counts at least
IDLE_S = 60.0  # a connection between two requests
LINGER_S = 1.0
STOP_S = 0.6
RETRY_S = 5.0
_END_OF_HEAD = b"\r\n\r\n"

logger = log.get(__name__)


class HttpPush:
    """The driver. Everything but `start`, `answer` and `trouble` happens on its event loop."""

    name = "http-push"

    def __init__(self, context: Context, settings: PushSettings) -> None:
        """ConfigError if tokens or certificate cannot be read."""
        self._context = context
        self._settings = settings
        self._doors = read_doors(settings)
        self._tls = read_tls(settings)
        self._put: Callable[[Offer | Resumed], None] = _nowhere
        self._loop = LoopThread("http-push")
        self._server: asyncio.Server | None = None
        self._outage = log.OutageLog(logger, "push-listener")
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._parked: dict[int, int] = {}  # bodies given up by their sender, not yet by us, and their bytes
        self._bytes = 0  # of all bodies inside
        self._connections: dict[asyncio.Task[None], float] = {}  # since when without a whole request
        self._numbers = 0
        self._ending = False

    # --- the port; called from the service's thread ---

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Listen, now or as soon as the address is free."""
        self._put = put
        self._loop.start()
        self._loop.run(self._open())

    def answer(self, offers: Sequence[Offer]) -> None:
        self._loop.call(self._safe, [offer.receipt for offer in offers])

    def trouble(self) -> str:
        return self._outage.reason

    def pause(self) -> None:
        self._loop.call(self._close)

    def stop(self) -> None:
        self._loop.stop(STOP_S)

    # --- on the loop ---

    async def _open(self) -> None:
        settings = self._settings
        while not self._ending:
            try:
                self._server = await asyncio.start_server(
                    self._serve, settings.host, settings.port, ssl=self._tls, limit=HEAD_BYTES_MAX
                )
            except OSError as error:
                text = error.strerror or str(error)
                self._outage.failed(f"cannot listen on {settings.host} port {settings.port}: {text}")
                await asyncio.sleep(RETRY_S)
                continue
            self._outage.worked()
            logger.info("push-listening", host=settings.host, port=settings.port)
            return

    def _close(self) -> None:
        self._ending = True
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._make_room()
        self._connections[task] = self._context.monotonic_s()
        try:
            while await self._one(reader, writer) and not self._ending:
                pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            pass  # the sender is gone, or was too slow to be told, or gave way
        finally:
            del self._connections[task]
            writer.close()

    def _make_room(self) -> None:
        """At the bound the one gives way that has been without a whole request for longest."""
        if len(self._connections) >= self._settings.connections_max:
            metrics.PUSH_REQUESTS.labels("gave-way").inc()
            min(self._connections, key=lambda task: self._connections[task]).cancel()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer. Whether another may follow on this connection."""
        head: Head | None = None
        keep, entered = False, 0
        try:
            async with asyncio.timeout(IDLE_S):
                first = await reader.read(1)
            if not first:
                return False
            async with asyncio.timeout(self._settings.read_s):
                head = parse_head(await self._read_head(reader, first))
                content_type = check(head, self._doors, self._settings.body_bytes_max)
                entered = self._enter(head.length)
                if head.expects_go:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(head.length)
            self._whole()
            keep = head.keep
            taken = await self._take(head, content_type, body)
            status, answer = HTTPStatus.OK, response(HTTPStatus.OK, taken, keep=keep)
        except TimeoutError:
            if head is None:
                raise
            problem = Problem("slow-request", f"It was not here within {self._settings.read_s:g} s.")
            status, answer = problem.status, refusal(problem, head.path, keep=False)
        except Problem as problem:
            status, answer = problem.status, refusal(problem, head.path if head else "", keep=keep)
        finally:
            self._bytes -= entered
        metrics.PUSH_REQUESTS.labels(str(int(status))).inc()
        writer.write(answer)
        async with asyncio.timeout(self._settings.read_s):
            await writer.drain()
            if not keep and status != HTTPStatus.OK:
                await self._linger(reader)
        return keep

    def _whole(self) -> None:
        """This connection has brought a whole request."""
        task = asyncio.current_task()
        if task is not None:
            self._connections[task] = self._context.monotonic_s()

    async def _linger(self, reader: asyncio.StreamReader) -> None:
        """Read what is still coming for a moment: closing at once would reset the connection and take the answer away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                left = self._settings.body_bytes_max
                while left > 0 and (data := await reader.read(HEAD_BYTES_MAX)):
                    left -= len(data)

    async def _read_head(self, reader: asyncio.StreamReader, first: bytes) -> bytes:
        try:
            return (first + await reader.readuntil(_END_OF_HEAD)).removesuffix(_END_OF_HEAD)
        except asyncio.LimitOverrunError:
            raise Problem("head-too-large", f"At most {HEAD_BYTES_MAX} bytes.") from None

    async def _take(self, head: Head, content_type: str, body: bytes) -> dict[str, object]:
        """Offer a body and wait until it is safe. Problem if it cannot be decoded, or is not safe in time."""
        try:
            decoded = formats.decode(content_type, body, head.device, self._context.stamp_us())
        except DecodeError as error:
            raise Problem("unreadable", str(error)) from None
        topic = f"push/{head.device}"
        parts, rejected = sort_values(topic, body, decoded.readings, decoded.rejects, self._context.sorter)
        key = head.headers.get("idempotency-key", "")
        token = source_token(f"{topic}/{key}", 0, body, b"push") if key else b""
        await self._until_safe(
            Offer(self, self._new_number(), tuple(parts), token, bool(token), rejected), max(len(body), BODY_BYTES_MIN)
        )
        return {"readings": len(decoded.readings), "rejected": len(decoded.rejects)}

    def _enter(self, length: int) -> int:
        """Room for a body; returns what it counts. Problem if there is none: the spool is full, or its storage is slow."""
        size = max(length, BODY_BYTES_MIN)
        if self._bytes + sum(self._parked.values()) + size > BODIES_BYTES_MAX:
            raise Problem("busy", "Too much waits to become safe already. Nothing was taken.")
        self._bytes += size
        return size

    def _new_number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _until_safe(self, offer: Offer, size: int) -> None:
        number = self._numbers
        safe = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._put(offer)
        try:
            async with asyncio.timeout(self._settings.answer_s):
                await safe
        except TimeoutError:
            detail = (
                "It was not safe in time and may still become so; the same Idempotency-Key makes a repetition harmless."
            )
            raise Problem("busy", detail) from None
        finally:
            del self._waiting[number]
            if safe.cancelled():
                self._parked[number] = size

    def _safe(self, numbers: Sequence[object]) -> None:
        for number in numbers:
            if not isinstance(number, int):
                continue
            self._parked.pop(number, None)
            waiting = self._waiting.get(number)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
                failpoint.hit("gateway.after-answer")


def read_doors(settings: PushSettings) -> Doors | None:
    """The tokens and whom they are for; None if none are asked for. ConfigError if they cannot be read."""
    if settings.token_file is None:
        return None
    try:
        return Doors(settings.token_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"gateway.push.token_file {settings.token_file}: {reason}"]) from None


def read_tls(settings: PushSettings) -> ssl.SSLContext | None:
    """What to speak HTTPS with; None if it is HTTP. ConfigError if certificate or key cannot be used."""
    if settings.tls_cert_file is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as error:  # ssl.SSLError included
        raise ConfigError([f"gateway.push.tls_cert_file {settings.tls_cert_file}: {error}"]) from None
    return context


def _nowhere(_offer: Offer | Resumed) -> None:
    """Before `start` nobody listens, and nothing comes."""
