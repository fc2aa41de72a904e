"""An asyncio MQTT 5 session over the sans-IO `mqtt5` codec: persistent, with acknowledgement left to the caller.

Nothing is acknowledged on arrival. The caller gets every PUBLISH with its packet id and calls `acknowledge` when what it
says is durable; the broker's Receive Maximum then is the back-pressure. A connection has a generation: packet ids of
an old one are never acknowledged on a new one, because the broker sends those messages again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import mqtt5

from citynet.errors import CitynetError
from citynet.runtime import log
from citynet.runtime.settings import BrokerEndpoint, TlsSettings

_CONNECT_TIMEOUT_S = 10.0
_RETRY_S_MIN = 0.2
_OUTBOX_MAX = 10_000  # control messages waiting for the broker; the oldest gives way (senders ask again)
_GRANTED = (
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
    mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE,
)
_TAKEN = (mqtt5.PubAckReasonCode.SUCCESS, mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS)
_log = log.get("session")


class BrokerRefusedError(CitynetError):
    """The broker answered the connection with an error; the message names it."""


class Listener(Protocol):
    """What a session tells its owner. Called on the event loop; must not block."""

    def connected(self, generation: int, session_present: bool) -> None: ...

    def received(self, packet: mqtt5.PublishPacket, generation: int) -> None: ...

    def paused(self) -> None:
        """Everything that came with one read of the socket was given to `received`."""

    def lost(self) -> None: ...

    def failed(self, error: str) -> None:
        """A connection ended or could not be made; it is tried again."""

    def taken_over(self) -> None:
        """The broker gave the session to somebody else. It is not connected again before `Session.allow`."""


class Session:
    """One persistent session with the broker, kept up until `close`."""

    def __init__(
        self,
        endpoint: BrokerEndpoint,
        client_id: str,
        filters: list[mqtt5.TopicFilter],
        listener: Listener,
        *,
        receive_maximum: int,
        keep_alive_s: int,
        session_expiry_s: int,
        retry_s_max: float,
        optional: Sequence[mqtt5.TopicFilter] = (),
    ) -> None:
        self._endpoint = endpoint
        self._filters = filters
        self._optional = list(optional)  # goes on without them if the broker refuses
        self._optional_id = 0
        self._listener = listener
        self._keep_alive_s = keep_alive_s
        self._retry_s_max = retry_s_max
        password = endpoint.password()
        self._connect = mqtt5.ConnectPacket(
            client_id,
            username=endpoint.username,
            password=password.encode() if password is not None else None,
            clean_start=False,
            keep_alive=keep_alive_s,
            session_expiry_interval=session_expiry_s,
            receive_max=receive_maximum,
            max_packet_size=(1 << 20) + 65_536,
        )
        self._generation = 0
        self._link: _Link | None = None
        self._closing = asyncio.Event()
        self._outbox: OrderedDict[str, tuple[str, bytes, Mapping[str, Any]]] = OrderedDict()
        self._outstanding: set[int] = set()
        self._outstanding_max = 20
        self._packet_id = 0
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._patience: asyncio.Timeout | None = None  # of the connection that is being made

    @property
    def is_connected(self) -> bool:
        return self._link is not None

    async def run(self) -> None:
        """Keep the session up until `close`; returns then. Reconnects for ever, with backoff and jitter."""
        pause = _RETRY_S_MIN
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S) as self._patience:
                    link = await self._open()
                pause = _RETRY_S_MIN
                await self._live(link)
                error = link.error or "connection closed"
            except (OSError, TimeoutError, BrokerRefusedError) as found:
                error = str(found) or type(found).__name__
            if self._closing.is_set():
                break
            self._listener.failed(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, self._retry_s_max)
            await self._allowed.wait()

    def allow(self) -> None:
        """The session is ours after all: connect again."""
        self._allowed.set()

    def close(self) -> None:
        """Disconnect; the broker keeps the session. What is in flight comes again at the next connect."""
        self._closing.set()
        self._allowed.set()
        if self._patience is not None:
            with contextlib.suppress(RuntimeError):  # that connection was made, or given up
                self._patience.reschedule(asyncio.get_running_loop().time())
        if self._link is not None:
            self._link.write(mqtt5.DisconnectPacket().write())
            self._link.close()

    def acknowledge(self, packet_ids: Iterable[int], generation: int) -> None:
        """PUBACK, in this order, in one write. Ids of an earlier connection are dropped: those messages come again."""
        if self._link is not None and generation == self._generation:
            self._link.write(b"".join(mqtt5.PubAckPacket(packet_id).write() for packet_id in packet_ids))

    def pause(self) -> None:
        """Stop reading from the broker (bytes in flight at their bound)."""
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        if self._link is not None:
            self._link.resume()

    def publish(self, key: str, topic: str, payload: bytes, **properties: Any) -> None:
        """Publish at QoS 1 as soon as the broker takes it. A later message of the same `key` replaces a waiting one.

        `properties` are those of MQTT 5, under the names of `mqtt5.PublishPacket`.
        """
        self._outbox[key] = (topic, payload, properties)
        self._outbox.move_to_end(key)
        while len(self._outbox) > _OUTBOX_MAX:
            self._outbox.popitem(last=False)
        self._flush()

    def withdraw(self, key: str) -> None:
        """Do not publish what still waits under this key."""
        self._outbox.pop(key, None)

    def _flush(self) -> None:
        if self._link is None:
            return
        packets: list[bytes] = []
        while self._outbox and len(self._outstanding) < self._outstanding_max:
            _, (topic, payload, properties) = self._outbox.popitem(last=False)
            packet_id = self._next_packet_id()
            self._outstanding.add(packet_id)
            packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id, **properties)
            packets.append(packet.write())
        if packets:
            self._link.write(b"".join(packets))

    def _next_packet_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 65_535 + 1
            if self._packet_id not in self._outstanding:
                return self._packet_id

    async def _open(self) -> _Link:
        loop = asyncio.get_running_loop()
        context = tls_context(self._endpoint.tls) if self._endpoint.tls is not None else None
        _, link = await loop.create_connection(_Link, self._endpoint.host, self._endpoint.port, ssl=context)
        try:
            link.write(self._connect.write())
            answer = await link.packets.get()
            if not isinstance(answer, mqtt5.ConnAckPacket):
                raise BrokerRefusedError(f"broker: {link.error or 'closed the connection before its answer'}")
            if answer.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
                raise BrokerRefusedError(f"broker refused: {answer.reason_code.name.lower().replace('_', '-')}")
            self._welcome(link, answer)
        except BaseException:
            link.close()
            raise
        return link

    def _welcome(self, link: _Link, answer: mqtt5.ConnAckPacket) -> None:
        self._generation += 1
        self._outstanding.clear()  # acknowledgements are cumulative: one that got lost is sent again when asked for
        self._outstanding_max = max(1, min(answer.receive_max, 1_000))
        self._link = link
        link.write(mqtt5.SubscribePacket(self._next_packet_id(), self._filters).write())
        if self._optional:
            self._optional_id = self._next_packet_id()
            link.write(mqtt5.SubscribePacket(self._optional_id, self._optional).write())
        self._listener.connected(self._generation, answer.session_present)
        self._flush()

    async def _live(self, link: _Link) -> None:
        ping = asyncio.create_task(self._ping(link), name="mqtt-ping")
        try:
            link.deliver(self)
            await link.closed.wait()
        finally:
            ping.cancel()
            self._link = None
            link.close()
            self._listener.lost()

    async def _ping(self, link: _Link) -> None:
        """Twice in a keep-alive, so that being held up does not cost us the link at once; and it is given up after two
        intervals without a word, for in the one in which reading goes on again nothing may have been read yet."""
        quiet = 0
        while quiet < 2:
            heard = link.heard
            link.write(mqtt5.PingReqPacket().write())
            await asyncio.sleep(self._keep_alive_s / 2)
            quiet = 0 if link.is_paused or link.heard != heard else quiet + 1
        link.fail("no answer within the keep-alive")

    def read_done(self) -> None:
        """One read of the socket is dealt with (called by the link)."""
        self._listener.paused()

    def handle(self, packet: mqtt5.Packet, link: _Link) -> None:
        """One packet from the broker (called by the link)."""
        if isinstance(packet, mqtt5.PublishPacket):
            self._listener.received(packet, self._generation)
        elif isinstance(packet, mqtt5.PubAckPacket):
            self._outstanding.discard(packet.packet_id)
            if packet.reason_code not in _TAKEN:
                _log.warning("publish-refused", reason=packet.reason_code.name.lower().replace("_", "-"))
            self._flush()
        elif isinstance(packet, mqtt5.SubAckPacket):
            refused = [code.name for code in packet.reason_codes if code not in _GRANTED]
            if refused and packet.packet_id == self._optional_id:
                _log.warning("subscription-refused", topics=[item.pattern for item in self._optional])
            elif refused:
                link.fail(f"subscription refused: {', '.join(refused).lower()}")
        elif isinstance(packet, mqtt5.DisconnectPacket):
            if packet.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
                self._allowed.clear()
                self._listener.taken_over()
            link.fail(f"broker disconnected us: {packet.reason_code.name.lower().replace('_', '-')}")


class _Link(asyncio.Protocol):
    """One TCP connection: bytes to packets. Until `deliver` is called packets wait in a queue."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[mqtt5.Packet | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.error: str | None = None
        self.heard = 0
        self.is_paused = False
        self._owner: Session | None = None
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.error is None:
            self.error = str(exc)
        self.closed.set()
        self.packets.put_nowait(None)

    def data_received(self, data: bytes) -> None:
        self.heard += 1
        self._buffer = self._buffer + data if self._buffer else data
        view = memoryview(self._buffer)
        position, end = 0, len(view)
        try:
            while position < end:
                packet, used = mqtt5.read(view[position:])
                position += used
                if self._owner is not None:
                    self._owner.handle(packet, self)
                else:
                    self.packets.put_nowait(packet)
        except IndexError:  # the rest of a packet is still on its way
            pass
        except ValueError as error:
            self.fail(f"malformed packet from the broker: {error}")
        self._buffer = self._buffer[position:]
        if self._owner is not None:
            self._owner.read_done()

    def deliver(self, owner: Session) -> None:
        """From now on packets go to `owner`, those that came in the meantime first."""
        self._owner = owner
        while not self.packets.empty():
            packet = self.packets.get_nowait()
            if packet is not None:
                owner.handle(packet, self)
        owner.read_done()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause(self) -> None:
        if self._transport is not None and not self.is_paused and not self._transport.is_closing():
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self.is_paused:
            self.is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def fail(self, why: str) -> None:
        self.error = why
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Client context: verifies the broker, offers a client certificate if there is one."""
    context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context
