"""What a broker says of itself on its ``$SYS`` topics."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.ingest import wait_for

DROPPED = "$SYS/broker/publish/messages/dropped"
UPTIME = "$SYS/broker/uptime"


class BrokerWatch:
    """The newest value of every number that the broker publishes about itself."""

    def __init__(self, port: int) -> None:
        self.values: dict[str, int] = {}
        self._reports = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="watch", protocol=paho.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_connect = self._subscribe
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        wait_for(lambda: self.values, "the broker reports about itself")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self, *_: object) -> None:
        self._client.subscribe("$SYS/broker/#")

    def wait_settled(self) -> None:
        """Whatever the broker has counted by now is in `values`: a whole report began and ended since."""
        enough = self._reports + 2
        wait_for(lambda: self._reports >= enough, "the broker reports about itself twice")

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == UPTIME:
            self._reports += 1  # the one value that every report carries: the others only come when they changed
        if message.payload.isdigit():
            self.values[message.topic] = int(message.payload)
