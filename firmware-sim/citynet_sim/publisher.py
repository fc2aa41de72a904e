"""Links: the devices of one gateway, publishing to their broker over MQTT 5 at QoS 1.

A device keeps a message until its PUBACK says that somebody has it. While the broker is away, or answers that
nobody listens or that publishing is not allowed, messages wait in their device's buffer,
`buffer_messages_max` a device; when that is full the device's oldest message that was never handed over gives
way, and is reported as lost. At most `in_flight_max` messages of a link await their PUBACK. Reconnecting
backs off from 0.2 s to 2 s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from citynet.runtime import log
from citynet.runtime.settings import BrokerEndpoint
from citynet_sim.device import Message
from citynet_sim.truth import LOST_BUFFER_FULL, LOST_STOPPED

BACKOFF_S = (0.2, 2.0)  # first and longest wait between two attempts to connect
CONNECT_S_MAX = 5.0
KEEPALIVE_S = 15
SETTLE_S_MAX = 3.0  # after a refusal: wait for the answers to what else is in flight
_NO_SUBSCRIBER = 0x10  # MQTT 5, table 3.4.2.1: accepted, but nobody will get it
_logger = log.get(__name__)


class Journal(Protocol):
    """Who is told what becomes of a message."""

    def acked(self, number: int) -> None:
        """The broker has it."""

    def resent(self, numbers: list[int]) -> None:
        """These are about to be handed over once more; their first copy may have arrived."""

    def lost(self, numbers: list[int], reason: str) -> None:
        """These were given up before they were handed over."""


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Bounds of a link, see the settings of the same names."""

    in_flight_max: int = 32
    buffer_messages_max: int = 240
    ack_timeout_s: float = 15.0


class RefusedError(aiomqtt.MqttError):
    """The broker answered a message with a reason code that means: nobody has got it."""


class _Client(aiomqtt.Client):
    """aiomqtt drops the PUBACK's reason code; without it a message that nobody got would look delivered."""

    def __init__(self, *args: Any, wake: asyncio.Event, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.refusals: list[str] = []
        self._wake = wake

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.is_failure or reason_code.value == _NO_SUBSCRIBER:
            self.refusals.append(str(reason_code))  # its confirmation never comes: the message stays in flight
            self._wake.set()
        else:
            super()._on_publish(client, userdata, mid, reason_code, properties)

    def cut(self) -> None:
        """Give the sockets back, of a connection that was never answered as well; later there may be no event loop for it."""
        self._client._reset_sockets()


class Outbox:
    """Messages of one link that were never handed over, in order, at most `per_device_max` of each device."""

    def __init__(self, per_device_max: int) -> None:
        self._per_device_max = per_device_max
        self._messages: dict[int, Message] = {}
        self._of_device: dict[str, deque[int]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> int | None:
        """Add a message; returns the number of the one that had to give way, if any."""
        numbers = self._of_device.setdefault(message.device, deque())
        given_up = None
        if len(numbers) >= self._per_device_max:
            given_up = numbers.popleft()
            del self._messages[given_up]
        numbers.append(message.number)
        self._messages[message.number] = message
        return given_up

    def take(self) -> Message:
        """The oldest message. KeyError when empty."""
        message = self._messages.pop(next(iter(self._messages), 0))
        self._of_device[message.device].popleft()
        return message

    def clear(self) -> list[int]:
        """Empty it; returns the numbers of what was in it."""
        numbers = list(self._messages)
        self._messages.clear()
        self._of_device.clear()
        return numbers


class Link:
    """The devices behind one gateway, as one MQTT connection. `run` it as a task, `offer` it messages."""

    def __init__(
        self, gateway: str, client_id: str, broker: BrokerEndpoint, limits: LinkLimits, journal: Journal
    ) -> None:
        self._gateway = gateway
        self._client_id = client_id
        self._broker = broker
        self._password = broker.password()
        self._limits = limits
        self._journal = journal
        self._outbox = Outbox(limits.buffer_messages_max)
        self._flying: dict[int, Message] = {}
        self._resend: deque[Message] = deque()
        self._uncertain: set[int] = set()  # handed over, then the connection broke: a copy may have arrived
        self._wake = asyncio.Event()
        self._backoff_s = BACKOFF_S[0]
        self._outage = log.OutageLog(_logger.bind(gateway=gateway), "field-broker")

    @property
    def waiting(self) -> int:
        """Messages that are not settled yet."""
        return len(self._outbox) + len(self._flying) + len(self._resend)

    def offer(self, message: Message) -> None:
        """Take over a message; one of the same device may be lost for it when the buffer is full."""
        given_up = self._outbox.put(message)
        if given_up is not None:
            self._journal.lost([given_up], LOST_BUFFER_FULL)
        self._wake.set()

    def stop(self) -> None:
        """Give up what was never handed over."""
        if numbers := self._outbox.clear():
            self._journal.lost(numbers, LOST_STOPPED)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            try:
                await self._session()
            except* aiomqtt.MqttError as group:
                self._outage.failed(_first(group))
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(self._backoff_s * 2, BACKOFF_S[1])

    async def _session(self) -> None:
        """One connection; ends with MqttError (in a group or alone) when it breaks or a message is refused."""
        certain, client = False, self._client()
        try:
            async with client, asyncio.TaskGroup() as deliveries:
                try:
                    await self._pump(client, deliveries)
                except RefusedError:
                    certain = len(self._flying) == len(client.refusals)
                    raise
        finally:
            client.cut()
            self._land(certain=certain)

    def _client(self) -> _Client:
        tls = self._broker.tls
        client = _Client(
            self._broker.host,
            self._broker.port,
            wake=self._wake,
            username=self._broker.username,
            password=self._password,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            keepalive=KEEPALIVE_S,
            timeout=CONNECT_S_MAX,
            max_inflight_messages=self._limits.in_flight_max,
            tls_params=None
            if tls is None
            else aiomqtt.TLSParameters(
                ca_certs=_path(tls.ca_file), certfile=_path(tls.cert_file), keyfile=_path(tls.key_file)
            ),
        )
        client.pending_calls_threshold = self._limits.in_flight_max  # below it, many pending calls are intended
        return client

    async def _pump(self, client: _Client, deliveries: asyncio.TaskGroup) -> None:
        while not client.refusals:
            self._wake.clear()
            while self._has_next() and len(self._flying) < self._limits.in_flight_max:
                message = self._next()
                self._flying[message.number] = message
                if message.number in self._uncertain:
                    self._journal.resent([message.number])
                deliveries.create_task(self._deliver(client, message))
            await self._wake.wait()
        # Everything in flight gets its answer first: what is still open then was refused, and only that.
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                while len(self._flying) > len(client.refusals):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass
        raise RefusedError(f"{client.refusals[0]} ({len(client.refusals)} messages, all kept)")

    def _has_next(self) -> bool:
        return bool(self._resend) or bool(len(self._outbox))

    def _next(self) -> Message:
        return self._resend.popleft() if self._resend else self._outbox.take()

    async def _deliver(self, client: _Client, message: Message) -> None:
        await client.publish(
            message.topic,
            message.payload,
            qos=1,
            properties=_properties(message.content_type),
            timeout=self._limits.ack_timeout_s,
        )
        del self._flying[message.number]
        self._uncertain.discard(message.number)
        self._journal.acked(message.number)
        self._backoff_s = BACKOFF_S[0]
        self._outage.worked()
        self._wake.set()

    def _land(self, *, certain: bool) -> None:
        """The connection is over: what was in flight goes first next time. `certain`: none has arrived."""
        if not certain:
            self._uncertain.update(self._flying)
        self._resend = deque(sorted([*self._flying.values(), *self._resend], key=lambda message: message.number))
        self._flying.clear()


@cache
def _properties(content_type: str) -> Properties:
    """The properties of a message; made once for each of the few content types."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content_type
    return properties


def _first(group: BaseExceptionGroup[aiomqtt.MqttError]) -> BaseException:
    """The first plain error of a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _path(path: object) -> str | None:
    return None if path is None else str(path)
