"""The connections of a load: one a gateway, MQTT 5 at QoS 1, all in one thread over non-blocking sockets."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import mqtt5

from citynet.errors import CitynetError
from citynet_sim.load import Rates, Stencil, gateway_name

WINDOW = 100  # batches of a connection that await their PUBACK, at most
CONNECT_S_MAX = 10.0
DRAIN_S_MAX = 10.0
KEEPALIVE_S = 600  # a load's connections are busy, or the load is about to end
_NO_SUBSCRIBER = 0x10
_PUBACK, _DISCONNECT = 4, 14
_POLL_S = 0.05
_LOOK_EVERY = 64  # batches between two looks at the clock


class LoadError(CitynetError):
    """The broker refuses or ends a connection; says which and why."""


@dataclass(slots=True)
class _Link:
    """One connection: what of its packet is not sent yet, how much is not acknowledged."""

    socket: socket.socket
    stencil: Stencil
    window: int
    sent: int = 0
    settled: int = 0
    rest: memoryview = field(default_factory=lambda: memoryview(b""))
    inbox: bytearray = field(default_factory=bytearray)

    @property
    def is_free(self) -> bool:
        return not self.rest and self.sent - self.settled < self.window

    def push(self) -> None:
        """Send what the socket takes. LoadError: the connection broke."""
        try:
            while self.rest:
                self.rest = self.rest[self.socket.send(self.rest) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise LoadError(f"a connection broke: {error.strerror}") from None

    def give(self) -> None:
        """Begin with the next batch."""
        self.rest = memoryview(self.stencil.next(self.sent % 65_535 + 1))
        self.sent += 1
        self.push()

    def take(self, rates: Rates) -> None:
        """Read and count what the broker says. LoadError: it ended the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            raise LoadError("the broker closed a connection")
        self.inbox += data
        for kind, body in _packets(self.inbox):
            if kind == _DISCONNECT:
                raise LoadError(f"the broker ended a connection, reason {body[0] if body else 0:#04x}")
            if kind == _PUBACK:
                self.settled += 1
                reason = body[2] if len(body) > 2 else 0
                rates.acked += reason < 0x80
                rates.unheard += reason == _NO_SUBSCRIBER
                rates.refused += reason >= 0x80


def _packets(inbox: bytearray) -> list[tuple[int, bytes]]:
    """Whole packets at the head of `inbox`, taken out: (type, body)."""
    found, start = [], 0
    while len(inbox) - start >= 2:
        size, at, shift = 0, start + 1, 0
        while at < len(inbox) and shift < 28:
            size |= (inbox[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not inbox[at - 1] & 0x80:
                break
        else:
            break
        if at + size > len(inbox):
            break
        found.append((inbox[start] >> 4, bytes(inbox[at : at + size])))
        start = at + size
    del inbox[:start]
    return found


def publish(
    host: str,
    port: int,
    made: Sequence[Stencil],
    seconds: float,
    readings_per_s: float,
    until_us: int | None,
    tell: Callable[[Rates], None],
    stopped: Callable[[], bool],
) -> Rates:
    """Publish batches in turn for `seconds`, at `readings_per_s` (0: as fast as the broker takes them).

    Ends early when the readings' own times reach `until_us`, or when `stopped` says so. `tell` is called now and then.

    Raises:
        LoadError: the broker cannot be reached, refuses, or ends a connection.
    """
    rates = Rates()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        links = []
        for number, stencil in enumerate(made):
            link = _connect(host, port, number, stencil)
            stack.callback(link.socket.close)
            selector.register(link.socket, selectors.EVENT_READ, link)
            links.append(link)
        began_s, cpu_s = time.monotonic(), time.process_time()
        _pump(links, selector, rates, began_s, seconds, readings_per_s, until_us, tell, stopped)
        rates.seconds, rates.cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        _drain(links, selector, rates)
    return rates


def _pump(
    links: list[_Link],
    selector: selectors.BaseSelector,
    rates: Rates,
    began_s: float,
    seconds: float,
    readings_per_s: float,
    until_us: int | None,
    tell: Callable[[Rates], None],
    stopped: Callable[[], bool],
) -> None:
    turn = 0
    while (passed_s := time.monotonic() - began_s) < seconds:
        rates.seconds = passed_s
        tell(rates)
        if stopped():
            rates.ended = "stopped"
            return
        due = readings_per_s * passed_s if readings_per_s else float("inf")
        given = 0
        for _ in range(len(links) if rates.readings < due else 0):
            link = links[turn % len(links)]
            turn += 1
            if rates.readings >= due or given >= _LOOK_EVERY:
                turn -= 1
                break
            if until_us is not None and link.stencil.time_us >= until_us:
                rates.ended = "caught up with the clock"
                return
            if link.is_free:
                link.give()
                given += 1
                rates.batches, rates.readings = rates.batches + 1, rates.readings + link.stencil.readings
                rates.bytes += len(link.stencil.packet)
        _serve(links, selector, rates, 0.0 if given else min(_POLL_S, _until_next(rates, readings_per_s, passed_s)))


def _until_next(rates: Rates, readings_per_s: float, passed_s: float) -> float:
    """Seconds until the next batch is due; how long a full window waits for an answer."""
    return max(0.0, rates.readings / readings_per_s - passed_s) if readings_per_s else _POLL_S


def _serve(links: list[_Link], selector: selectors.BaseSelector, rates: Rates, timeout_s: float) -> None:
    """Go on with what is half sent; take what has come, for which to wait so long."""
    for link in links:
        if link.rest:
            selector.modify(link.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)
    for key, events in selector.select(timeout_s):
        link = key.data
        try:
            if events & selectors.EVENT_WRITE:
                link.push()
                if not link.rest:
                    selector.modify(link.socket, selectors.EVENT_READ, link)
            if events & selectors.EVENT_READ:
                link.take(rates)
        except OSError as error:
            raise LoadError(f"a connection broke: {error.strerror}") from None


def _drain(links: list[_Link], selector: selectors.BaseSelector, rates: Rates) -> None:
    """Wait for the answers, so long at most; then say good-bye."""
    deadline_s = time.monotonic() + DRAIN_S_MAX
    while any(link.rest or link.sent > link.settled for link in links) and time.monotonic() < deadline_s:
        _serve(links, selector, rates, _POLL_S)
    for link in links:
        with suppress(OSError):
            link.socket.send(mqtt5.DisconnectPacket().write())


def _connect(host: str, port: int, number: int, stencil: Stencil) -> _Link:
    try:
        connection = socket.create_connection((host, port), CONNECT_S_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = f"sim-load-{number:03d}-{time.time_ns() % 10**9:09d}"
        connection.sendall(mqtt5.ConnectPacket(client, clean_start=True, keep_alive=KEEPALIVE_S).write())
        inbox = bytearray()
        while not (found := _packets_kept(inbox)):
            data = connection.recv(4096)
            if not data:
                raise LoadError(f"{host}:{port}: the broker closed connection {number + 1} at once")
            inbox += data
    except OSError as error:
        why = error.strerror or str(error)
        raise LoadError(f"{host}:{port}: connection {number + 1} of {gateway_name(number)}: {why}") from None
    answer, _ = mqtt5.read(memoryview(found))
    if not isinstance(answer, mqtt5.ConnAckPacket) or answer.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
        raise LoadError(f"{host}:{port}: the broker refused connection {number + 1}: {answer}")
    connection.setblocking(False)
    return _Link(connection, stencil, min(WINDOW, answer.receive_max))


def _packets_kept(inbox: bytearray) -> bytes:
    """The first packet as it came, if it is whole."""
    return bytes(inbox) if _packets(bytearray(inbox)) else b""
