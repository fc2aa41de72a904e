"""Devices that push: MQTT in ThingsBoard's or SenML's words, ChirpStack's uplinks, HJ 212 stations."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citynet import topics
from citynet.runtime.settings import BrokerEndpoint
from citynet_sim.city import Device
from citynet_sim.firmware import speech
from citynet_sim.firmware.identity import dev_eui, station_number
from citynet_sim.firmware.machine import ConfigurationError, Mode, Report
from citynet_sim.firmware.port import Request
from citynet_sim.protocols.hj212 import Station

REQUEST_BYTES_MAX = 4096
_KEEPALIVE_S = 30
_NO_SUBSCRIBER = 0x10
_GLANCE_S = 0.001


class MqttPost:
    """A device with a connection of its own, at QoS 1.

    What is wanted of it comes as JSON on ``config/DEVICE``: ``{"configure": {"interval_s": 60}}``, ``{"update": "1.1.0"}``,
    ``{"reboot": true}``; the answer goes to ``config/DEVICE/result``.
    """

    def __init__(self, device: Device, protocol: str, broker: BrokerEndpoint, prefix: str) -> None:
        self._broker = broker
        words: dict[str, Callable[[Report], tuple[str, bytes]]] = {
            "mqtt": speech.thingsboard,
            "senml": partial(speech.senml, device),
            "chirpstack": partial(speech.chirpstack, device),
        }
        self._words = words[protocol]
        self._topic = (
            f"application/sim/device/{dev_eui(device)}/event/up"
            if protocol == "chirpstack"
            else topics.field(prefix, device.gateway, device.name)
        )
        self._config = f"config/{device.name}"
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"sim-{device.name}", protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 30)
        self._client.max_queued_messages_set(1)
        self._answers: dict[int, int] = {}
        self._answered = threading.Condition()
        self._hear: Callable[[Request], None] = lambda _: None

    def start(self, hear: Callable[[Request], None]) -> None:
        self._hear = hear
        client, tls = self._client, self._broker.tls
        if self._broker.username:
            client.username_pw_set(self._broker.username, self._broker.password())
        if tls is not None:
            client.tls_set(_path(tls.ca_file), _path(tls.cert_file), _path(tls.key_file))
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.connect_async(self._broker.host, self._broker.port, _KEEPALIVE_S)
        client.loop_start()

    def deliver(self, report: Report, timeout_s: float) -> bool:
        if not self._client.is_connected():
            return False
        content_type, payload = self._words(report)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = content_type
        with self._answered:
            self._answers.clear()
            info = self._client.publish(self._topic, payload, qos=1, properties=properties)
            if info.rc != paho.MQTT_ERR_SUCCESS:
                return False
            self._answered.wait_for(lambda: info.mid in self._answers, timeout_s)
            reason = self._answers.get(info.mid, 0xFF)
        return reason < 0x80 and reason != _NO_SUBSCRIBER

    def listen(self) -> None:
        """paho's own thread hears."""

    def show(self, mode: Mode) -> None:
        """A broker does not see what a device is doing."""

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe(self._config, qos=1)

    def _on_publish(self, _client: object, _data: object, mid: int, reason: object, _properties: object) -> None:
        with self._answered:
            self._answers[mid] = int(getattr(reason, "value", 0))
            self._answered.notify_all()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        def answer(said: dict[str, object]) -> None:
            self._client.publish(f"{self._config}/result", json.dumps(said), qos=1)

        try:
            request = _request(bytes(message.payload), answer)
        except (ValueError, RecursionError) as error:
            answer({"refused": str(error)[:200]})
            return
        self._hear(request)


def _request(payload: bytes, answer: Callable[[dict[str, object]], None]) -> Request:
    """What is wanted. ValueError: it cannot be understood."""
    if len(payload) > REQUEST_BYTES_MAX:
        raise ConfigurationError(f"{len(payload)} bytes, at most {REQUEST_BYTES_MAX}")
    body = json.loads(payload)
    known = {"configure", "update", "reboot"}
    if not isinstance(body, dict) or not isinstance(body.get("configure", {}), dict) or set(body) - known:
        raise ConfigurationError(f"needs a JSON object with some of {', '.join(sorted(known))}")
    return Request(body.get("configure", {}), str(body.get("update", "")), bool(body.get("reboot", False)), answer)


def _path(path: object) -> str | None:
    return None if path is None else str(path)


class StationPost:
    """An HJ 212 station. CN 1062 sets its interval; what it answers besides is the station's own affair."""

    def __init__(self, device: Device, host: str, port: int, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._station = Station(port, mn=station_number(device), host=host)
        self._hear: Callable[[Request], None] = lambda _: None
        self._interval_s = self._station.intervals["RtdInterval"]

    def start(self, hear: Callable[[Request], None]) -> None:
        self._hear = hear

    def deliver(self, report: Report, timeout_s: float) -> bool:
        self._tell_time()
        body = self._station.values(speech.factors(report), speech.station_time(report))
        segment = self._station.segment(
            "2011", body, qn=f"{speech.station_time(report):%Y%m%d%H%M%S}{report.seq % 1000:03d}"
        )
        found = self._station.deliver(segment, timeout_s=timeout_s, recount=0)
        self._look()
        return found

    def listen(self) -> None:
        self._tell_time()
        try:
            self._station.receive(_GLANCE_S)
        except OSError:
            self._station.cut()
        self._look()

    def show(self, mode: Mode) -> None:
        if mode is not Mode.RUNNING:
            self._station.cut()

    def close(self) -> None:
        self._station.cut()

    def _tell_time(self) -> None:
        now = datetime.fromtimestamp(self._clock_us() / 1e6, speech.STATION_ZONE)
        self._station.now = now.replace(tzinfo=None)

    def _look(self) -> None:
        wanted = self._station.intervals["RtdInterval"]
        if wanted != self._interval_s:
            self._interval_s = wanted
            self._hear(Request({"interval_s": float(wanted)}))
