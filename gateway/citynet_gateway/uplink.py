"""The uplink's shell: one paho session towards the server's broker. It carries; `window` decides.

Batches, hellos and the status go out with QoS 1, acknowledgements come in; everything that comes is handed to
`put` from the network thread. The session starts clean: what was on its way when a connection broke is told
by the next hello.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from citynet import control, topics, wire
from citynet.errors import DecodeError
from citynet.runtime import failpoint, log
from citynet_gateway import certificate, metrics
from citynet_gateway.mqtt import KEEPALIVE_S, leave, new_client, reconnects_after, why_not_connected
from citynet_gateway.settings import Endpoint
from citynet_gateway.takeover import Cuts

INFLIGHT_MAX = 64  # MQTT publications without PUBACK
QUEUED_MAX = 128  # those and what waits behind them; beyond it `publish` refuses and the window tries later
GOODBYE_S_MAX = 1.5

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took us; acknowledgements are subscribed."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; paho is trying to come back."""


@dataclass(frozen=True, slots=True)
class Acked:
    """An acknowledgement of the server."""

    ack: control.Ack


@dataclass(frozen=True, slots=True)
class Delivered:
    """The broker has confirmed a publication."""

    ident: int
    at_s: float


UplinkEvent = Connected | Disconnected | Acked | Delivered


class Uplink:
    """Publishes for one gateway. `put` receives the events, in order, from the network thread; `on_command` what comes on
    the command topic, and whether it was retained.

    Raises:
        ConfigError: a password or certificate file that cannot be used.
    """

    def __init__(self, gateway: str, endpoint: Endpoint, put: Callable[[UplinkEvent], None], random: Random) -> None:
        self._endpoint = endpoint
        self._put = put
        self._up = topics.up(gateway)
        self._hello = topics.hello(gateway)
        self._status = topics.status(gateway)
        self._ack = topics.ack(gateway)
        self._command = topics.command(gateway)
        self._command_result = topics.command_result(gateway)
        self.on_command: Callable[[bytes, bool], None] | None = None
        self._outage = log.OutageLog(logger, "uplink")
        self._closing = False
        self._established = False
        self._cuts = Cuts()
        self._random = random
        self._batch_properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self._batch_properties.ContentType = wire.CBOR
        client = self._client = new_client(endpoint, f"{gateway}-uplink", random, manual_ack=False)
        client.max_inflight_messages_set(INFLIGHT_MAX)
        client.max_queued_messages_set(QUEUED_MAX)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def start(self, will: control.Status) -> None:
        """Connect, now or as soon as there is a broker; `will` is published by it when we vanish."""
        self.set_will(will)
        self._client.connect_async(self._endpoint.host, self._endpoint.port, keepalive=KEEPALIVE_S, clean_start=True)
        self._client.loop_start()

    def set_will(self, will: control.Status) -> None:
        """What the next connection registers as its will."""
        self._client.will_set(self._status, control.encode(will), qos=1, retain=True)

    def send_batch(self, payload: bytes) -> int | None:
        """Publish a batch envelope; its identifier in `Delivered`. None if it was not taken: no connection, or a full queue."""
        info = self._client.publish(self._up, payload, qos=1, properties=self._batch_properties)
        return info.mid if self._taken(info) else None

    def trouble(self) -> str:
        """What is wrong with the uplink, in plain words; empty if nothing is."""
        tls = self._endpoint.tls
        return self._outage.reason or (certificate.trouble(tls.cert_file, datetime.now(UTC)) if tls is not None else "")

    def send_hello(self, hello: control.Hello) -> bool:
        return self._taken(self._client.publish(self._hello, control.encode(hello), qos=1))

    def send_status(self, status: control.Status) -> bool:
        return self._taken(self._client.publish(self._status, control.encode(status), qos=1, retain=True))

    def send_result(self, result: control.CommandResult) -> bool:
        return self._taken(self._client.publish(self._command_result, control.encode(result), qos=1))

    def stop(self, last: control.Status) -> None:
        """Publish the last status, wait for the broker to have it (bounded), disconnect."""
        self._closing = True
        if self._client.is_connected():
            info = self._client.publish(self._status, control.encode(last), qos=1, retain=True)
            if info.rc == paho.MQTT_ERR_SUCCESS:
                info.wait_for_publish(GOODBYE_S_MAX)
        leave(self._client)

    @staticmethod
    def _taken(info: paho.MQTTMessageInfo) -> bool:
        return info.rc == paho.MQTT_ERR_SUCCESS

    def _on_connect(
        self,
        client: paho.Client,
        _data: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._outage.failed(f"broker refuses: {reason}")
            return
        client.subscribe([(self._ack, 1), (self._command, 1)])

    def _on_subscribe(
        self,
        _client: paho.Client,
        _data: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        # Only now can an answer reach us, so only now may the hello go out.
        if reasons[0].is_failure:
            self._outage.failed(f"subscription to {self._ack} refused: {reasons[0]}")
            return
        if reasons[-1].is_failure:  # a broker with older access rules: everything but commands works
            logger.warning("commands-refused", topic=self._command, reason=str(reasons[-1]))
        self._outage.worked()
        self._established = True
        metrics.CONNECTED.labels("uplink").set(1)
        self._put(Connected())

    def _on_connect_fail(self, _client: paho.Client, _data: object) -> None:
        self._not_connected(sys.exc_info()[1])  # paho calls this from its except clause

    def _not_connected(self, error: BaseException | None) -> None:
        reason, text = why_not_connected(self._endpoint, error, datetime.now(UTC))
        metrics.CONNECT_FAILURES.labels(reason).inc()
        self._outage.failed(text)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        metrics.CONNECTED.labels("uplink").set(0)
        self._put(Disconnected())
        was_established, self._established = self._established, False
        if self._closing:
            return
        if was_established:
            self._cut(reason.value)
        tls = self._endpoint.tls
        # With TLS 1.3 a broker refuses our certificate only after our side of the handshake is done.
        if (
            not was_established
            and tls is not None
            and "expired" in certificate.trouble(tls.cert_file, datetime.now(UTC))
        ):
            self._not_connected(None)
        else:
            self._outage.failed(reason)

    def _cut(self, reason: int) -> None:
        metrics.CUTS.inc()
        now_s = time.monotonic()
        meaning = self._cuts.cut(reason, now_s)
        if meaning is not None:
            logger.warning("uplink-cut-again", reason=reason, meaning=meaning)
        reconnects_after(self._client, self._random.randint(1, self._cuts.spread_s(now_s)), self._random)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == self._command:
            if self.on_command is not None:
                self.on_command(bytes(message.payload), message.retain)
            return
        try:
            ack = control.decode(bytes(message.payload), control.Ack)
        except DecodeError as error:
            metrics.ACKS.labels("undecodable").inc()
            logger.warning("ack-undecodable", error=str(error))
            return
        self._put(Acked(ack))

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, _reason: ReasonCode, _properties: Properties | None
    ) -> None:
        failpoint.hit("gateway.after-send")
        self._put(Delivered(mid, time.monotonic()))
