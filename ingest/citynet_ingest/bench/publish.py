"""A blocking MQTT 5 publisher and the sessions that load waits in at the broker."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mqtt5

from citynet_ingest.lanes import LANES, client_id, filters_of

_WINDOW = 2_000
_BLOCK = 200
_TIMEOUT_S = 60.0


def worker_sessions() -> list[tuple[str, list[mqtt5.TopicFilter]]]:
    """Client ids and subscriptions of a worker with default settings: the one place of the benchmarks that knows them."""
    return [(client_id(lane), filters_of(lane)) for lane in range(LANES)]


def open_session(port: int, client_id: str, filters: list[mqtt5.TopicFilter]) -> None:
    """Make a persistent, empty session with its subscriptions, and leave: the broker queues for it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(mqtt5.ConnectPacket(client_id, clean_start=True, session_expiry_interval=3600).write())
        inbox = Inbox(link)
        inbox.wait(mqtt5.ConnAckPacket)
        link.sendall(mqtt5.SubscribePacket(1, filters).write())
        inbox.wait(mqtt5.SubAckPacket)
        link.sendall(mqtt5.DisconnectPacket().write())


class Publisher:
    """Publishes at QoS 1 over one connection."""

    def __init__(self, link: socket.socket, content_type: str | None) -> None:
        self._link = link
        self._inbox = Inbox(link)
        self._content_type = content_type
        self.sent = 0
        self.acked = 0

    def packet(self, topic: str, payload: bytes) -> bytes:
        """The next PUBLISH; it counts as sent."""
        packet_id = self.sent % 65_535 + 1
        self.sent += 1
        return mqtt5.PublishPacket(
            topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id, content_type=self._content_type
        ).write()

    def send(self, data: bytes) -> None:
        self._link.sendall(data)

    def wait(self, unacknowledged_max: int) -> None:
        """Block until at most this many messages have no PUBACK."""
        while self.sent - self.acked > unacknowledged_max:
            self.acked += self._inbox.count_pubacks()

    def take_what_came(self) -> None:
        """Read the acknowledgements that are there, without waiting for more."""
        while select.select([self._link], [], [], 0)[0]:
            self.acked += self._inbox.count_pubacks()


@contextmanager
def connected(port: int, content_type: str | None) -> Iterator[Publisher]:
    """A publisher; at the end of the block every message has its PUBACK."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(mqtt5.ConnectPacket("citynet-bench-load", clean_start=True).write())
        Inbox(link).wait(mqtt5.ConnAckPacket)
        publisher = Publisher(link, content_type)
        yield publisher
        publisher.wait(0)
        link.sendall(mqtt5.DisconnectPacket().write())


def publish(port: int, messages: Iterable[tuple[str, bytes]], content_type: str | None) -> int:
    """Publish everything, as fast as the broker takes it. Returns how many messages."""
    with connected(port, content_type) as publisher:
        block: list[bytes] = []
        for topic, payload in messages:
            block.append(publisher.packet(topic, payload))
            if len(block) == _BLOCK:
                publisher.send(b"".join(block))
                block.clear()
                publisher.wait(_WINDOW)
        publisher.send(b"".join(block))
        publisher.wait(0)
        return publisher.sent


class Inbox:
    """Packets of a blocking socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = b""

    def _packets(self) -> list[mqtt5.Packet]:
        data = self._link.recv(1 << 16)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self._buffer += data
        packets: list[mqtt5.Packet] = []
        view, position = memoryview(self._buffer), 0
        try:
            while position < len(view):
                packet, used = mqtt5.read(view[position:])
                position += used
                packets.append(packet)
        except IndexError:
            pass
        self._buffer = self._buffer[position:]
        return packets

    def wait(self, kind: type[object]) -> None:
        """Read until a packet of this kind has come; what came before it is dropped."""
        while not any(isinstance(packet, kind) for packet in self._packets()):
            pass

    def count_pubacks(self) -> int:
        return sum(isinstance(packet, mqtt5.PubAckPacket) for packet in self._packets())
