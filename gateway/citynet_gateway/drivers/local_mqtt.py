"""Driver for devices that publish to a local MQTT broker: ``<prefix>/<gateway>/<device>``, QoS 1.

The session is persistent and acknowledged by hand, so the broker keeps what is not answered and delivers it
again.

What tells a redelivery from a device that honestly repeats itself was tried out with Mosquitto 2.0.11: on a
resumed session it delivers every message that it had sent and that was not acknowledged again with the *same
packet identifier* and *DUP set*, in the old order, and new messages without DUP under identifiers that go on
counting. So: DUP and a known token of (topic, packet identifier, payload) is a redelivery; without DUP it is
a new message, whatever it contains. DUP alone does not do, because the broker also sets it on messages that
never reached us; the token alone does not do, because identifiers wrap after 65,535. A new session counts
from 1 again, so the token also covers a random salt that is renewed whenever the broker says that it has no
session for us. Resuming, Mosquitto 2.0.11 ignores a Receive Maximum that has become smaller since.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from citynet.errors import CitynetError
from citynet.runtime import failpoint, log
from citynet_gateway import metrics
from citynet_gateway.drivers.port import Context, Offer, Resumed
from citynet_gateway.intake import Part, interpret, source_token
from citynet_gateway.mapping import Mapping, find
from citynet_gateway.mqtt import KEEPALIVE_S, leave, new_client
from citynet_gateway.spool.files import Files, replace_durably

SESSION_EXPIRY_S = 30 * 86_400  # how long the broker keeps messages for a gateway that is switched off
SALT_BYTES = 16
SALT_RETRY_S = 1.0
_FRESH_TOPICS_ONLY = 2  # MQTT 5 retain handling: no retained messages at subscribing, they are no new readings

logger = log.get(__name__)


class LocalMqtt:
    """`Driver` on a local broker."""

    name = "local-mqtt"

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._settings = settings
        self._files = context.files
        self._stamp_us = context.stamp_us
        self._salt_path = settings.data_dir / "field-session"
        self._salt = b""
        self._folder = f"{settings.field_prefix}/{settings.id}"
        self._sorter = context.sorter
        self._mappings = [Mapping(item) for item in settings.mappings]
        self._filters = [f"{self._folder}/+", *(mapping.topic for mapping in self._mappings)]
        self._outage = log.OutageLog(logger, "field-broker")
        self._put: Callable[[Offer | Resumed], None] = _nowhere
        self._connection = 0
        self._taking = False
        self._answering = threading.Lock()
        self._client = new_client(settings.local, f"{settings.id}-field", context.random, manual_ack=True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Connect and subscribe, now or as soon as there is a broker.

        Raises:
            CitynetError: the session's salt cannot be read or written.
        """
        self._put = put
        try:
            self._salt = read_salt(self._files, self._salt_path) or self._renew_salt()
        except OSError as error:
            raise CitynetError(f"{self._salt_path}: {error.strerror or error}") from None
        self._taking = True
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = self._settings.receive_max
        local = self._settings.local
        self._client.connect_async(
            local.host, local.port, keepalive=KEEPALIVE_S, clean_start=False, properties=properties
        )
        self._client.loop_start()

    def answer(self, offers: Sequence[Offer]) -> None:
        with self._answering:
            for offer in offers:
                connection, packet_id = _receipt(offer)
                # An answer of an earlier connection could hit another message of a new session.
                if connection == self._connection and packet_id:
                    self._client.ack(packet_id, 1)
                    failpoint.hit("gateway.after-answer")

    def trouble(self) -> str:
        return self._outage.reason

    def pause(self) -> None:
        self._taking = False

    def stop(self) -> None:
        self._taking = False
        leave(self._client)

    def _on_connect(
        self,
        _client: paho.Client,
        _data: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._outage.failed(f"broker refuses: {reason}")
            return
        if flags.session_present:
            logger.info("field-session-resumed")
            self._put(Resumed(self))
            self._subscribe()
        else:
            self._open_session(self._connection)

    def _open_session(self, connection: int) -> None:
        """A new session: nothing is subscribed, so nothing comes, before its salt is durable."""
        if connection != self._connection or not self._taking:
            return
        try:
            self._salt = self._renew_salt()
            logger.info("field-session-new")
        except OSError as error:
            self._outage.failed(f"{self._salt_path}: {error}")
            again = threading.Timer(SALT_RETRY_S, self._open_session, (connection,))
            again.daemon = True
            again.start()
            return
        self._subscribe()

    def _subscribe(self) -> None:
        options = SubscribeOptions(qos=1, retainHandling=_FRESH_TOPICS_ONLY)
        self._client.subscribe([(name, options) for name in self._filters])

    def _on_subscribe(
        self,
        _client: paho.Client,
        _data: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [(name, reason) for name, reason in zip(self._filters, reasons, strict=False) if reason.is_failure]
        if refused:
            self._outage.failed(f"subscription to {refused[0][0]} refused: {refused[0][1]}")
            return
        self._outage.worked()
        metrics.CONNECTED.labels("field").set(1)
        logger.info("field-subscribed", topic=", ".join(self._filters))

    def _on_connect_fail(self, _client: paho.Client, _data: object) -> None:
        self._outage.failed(f"no broker at {self._settings.local.host}:{self._settings.local.port}")

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._answering:
            self._connection += 1
        metrics.CONNECTED.labels("field").set(0)
        if self._taking:
            self._outage.failed(reason)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if not self._taking:
            return  # not answered: the broker keeps it for the next start
        packet_id, payload = message.mid if message.qos else 0, bytes(message.payload)
        parts, rejected = self._interpret(message, payload)
        token = source_token(message.topic, packet_id, payload, self._salt) if packet_id else b""
        receipt = (self._connection, packet_id)
        self._put(Offer(self, receipt, tuple(parts), token, bool(message.dup and packet_id), rejected, bool(packet_id)))

    def _interpret(self, message: paho.MQTTMessage, payload: bytes) -> tuple[list[Part], int]:
        accept_us = self._stamp_us()
        mapping = find(self._mappings, message.topic)
        if mapping is not None:
            return mapping.interpret(message.topic, payload, self._sorter, accept_us)
        content_type = getattr(message.properties, "ContentType", None) or self._settings.content_type_default
        return interpret(
            message.topic, payload, content_type, folder=self._folder, sorter=self._sorter, accept_us=accept_us
        )

    def _renew_salt(self) -> bytes:
        salt = secrets.token_bytes(SALT_BYTES)
        replace_durably(self._files, self._salt_path, salt)
        return salt


def read_salt(files: Files, path: Path) -> bytes:
    """The session's salt, empty if there is none (whole)."""
    try:
        salt = files.read(path, 0, SALT_BYTES)
    except FileNotFoundError:
        return b""
    return salt if len(salt) == SALT_BYTES else b""


def _receipt(offer: Offer) -> tuple[int, int]:
    receipt = offer.receipt
    if isinstance(receipt, tuple) and len(receipt) == 2:
        return receipt
    raise TypeError(f"not a receipt of this driver: {receipt!r}")


def _nowhere(_offer: Offer | Resumed) -> None:
    """Before `start` nobody listens, and nothing comes."""
