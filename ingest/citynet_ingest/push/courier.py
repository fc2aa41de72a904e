"""The courier: brings a message to the broker and waits for the worker's word that it is committed.

Every message asks for a reply (MQTT 5 response topic). Its correlation data is random, because whoever may publish could name
our reply topic: an answer that nobody can guess cannot be forged. A message is published once, never again by us: whether to
send it again is the caller's decision, who has the key that makes it safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import mqtt5

from citynet import control, topics
from citynet.control import Outcome
from citynet.errors import DecodeError
from citynet.runtime import log
from citynet.runtime.settings import BrokerSettings
from citynet_ingest.intake import IDEMPOTENCY_KEY
from citynet_ingest.session import Session

_CORRELATION_BYTES = 16
_KEEP_ALIVE_S = 20
_RETRY_S_MAX = 5.0
_RECEIVE_MAXIMUM = 1_000
_log = log.get("courier")


class AwayError(Exception):
    """There is no connection to the broker; the message was not sent."""


class NoAnswerError(Exception):
    """No reply in time, or the connection was lost meanwhile; the message may have been stored, or may still be."""


class Courier:
    """The session with the broker, and the requests that wait for their replies."""

    def __init__(self, broker: BrokerSettings) -> None:
        self.name = f"push-{secrets.token_hex(8)}"
        self._reply_topic = topics.reply(self.name)
        self._outage = log.OutageLog(log.get("courier"), "broker")
        self._waiting: dict[bytes, asyncio.Future[Outcome]] = {}
        self._session = Session(
            broker.endpoint(),
            f"citynet-{self.name}",
            [mqtt5.TopicFilter(self._reply_topic, max_qos=mqtt5.QoS.AT_LEAST_ONCE)],
            self,
            receive_maximum=_RECEIVE_MAXIMUM,
            keep_alive_s=_KEEP_ALIVE_S,
            session_expiry_s=0,
            retry_s_max=_RETRY_S_MAX,
        )

    @property
    def is_connected(self) -> bool:
        return self._session.is_connected

    async def run(self) -> None:
        """Keep the session up until `close`."""
        await self._session.run()

    def close(self) -> None:
        self._session.close()

    async def send(self, topic: str, body: bytes, content_type: str, key: str | None, answer_s: float) -> Outcome:
        """Publish `body` and wait at most `answer_s` seconds for what became of it.

        Raises:
            AwayError: not sent. NoAnswerError: sent, and its fate is unknown.
        """
        if not self._session.is_connected:
            raise AwayError
        correlation = secrets.token_bytes(_CORRELATION_BYTES)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = future
        self._session.publish(
            correlation.hex(), topic, body,
            content_type=content_type,
            response_topic=self._reply_topic,
            correlation_data=correlation,
            user_properties=[(IDEMPOTENCY_KEY, key)] if key is not None else [],
        )  # fmt: skip
        try:
            async with asyncio.timeout(answer_s):
                return await future
        except TimeoutError:
            raise NoAnswerError from None
        finally:
            del self._waiting[correlation]
            self._session.withdraw(correlation.hex())

    # --- what the session tells ---

    def failed(self, error: str) -> None:
        self._outage.failed(error)

    def taken_over(self) -> None:
        """The name is random and ours alone; whoever took it has no use for it."""
        self._session.allow()

    def connected(self, generation: int, session_present: bool) -> None:
        """Nothing to restore: whoever waited was told that its answer is lost."""
        self._outage.worked()

    def lost(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NoAnswerError())

    def received(self, packet: mqtt5.PublishPacket, generation: int) -> None:
        if packet.packet_id:
            self._session.acknowledge([packet.packet_id], generation)
        future = self._waiting.get(packet.correlation_data or b"")
        if future is None or future.done():
            return  # too late, or not ours
        with contextlib.suppress(DecodeError):
            future.set_result(control.decode(packet.payload, Outcome))

    def paused(self) -> None:
        """Every packet is dealt with when it comes."""
