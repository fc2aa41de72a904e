"""Load for the benchmarks: messages made in advance, queued at the broker for a session that is away."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator

import cbor2
import mqtt5
import numpy as np
from numpy.typing import NDArray

from citynet import topics, wire
from citynet.batch import F64, I32, I64
from citynet.columns import Column, pack_index, pack_offsets

METRICS = ("ch4_lel", "water_pressure_mpa", "level_m", "chlorine_mg_l")  # all of them have armed rules
CALM = (2.0, 0.35, 0.4, 0.5)  # values at which no rule fires
F32 = NDArray[np.float32]
_WINDOW = 2_000
_TIMEOUT_S = 60.0


def series_names(gateway: int, count: int) -> list[str]:
    """Names of a gateway's series: four metrics a device."""
    return [f"dev-{gateway:03d}-{k // 4:04d}/{METRICS[k % 4]}" for k in range(count)]


def batch_messages(
    gateways: int, series_each: int, batches_each: int, readings: int, start_us: int
) -> Iterator[tuple[str, bytes]]:
    """(topic, payload) of batch envelopes in CBOR: each series' time goes on by a second per reading."""
    rounds = readings // series_each
    index = pack_index(list(range(series_each)) * rounds, series_each)
    random = np.random.default_rng(1)
    values = np.array(CALM * (readings // 4 + 1))[:readings]
    encoded_names = [series_names(gateway, series_each) for gateway in range(gateways)]
    for number in range(batches_each):
        for gateway in range(gateways):
            name = f"bench-{gateway:03d}"
            step_us = np.repeat(np.arange(rounds), series_each) * 1_000_000
            noisy = (values * random.uniform(0.95, 1.05, readings)).astype("<f4")
            envelope = _envelope(
                name,
                number * readings + 1,
                batches_each * readings,
                encoded_names[gateway],
                index,
                start_us + number * rounds * 1_000_000,
                step_us,
                noisy,
            )
            yield topics.up(name), envelope


def _envelope(
    gateway: str, seq0: int, highest: int, names: list[str], index: Column, t0_us: int, dt_us: I64, value: F32
) -> bytes:
    body = {
        "v": wire.VERSION, "gw": gateway, "st": wire.TELEMETRY, "ep": 1, "s0": seq0, "n": len(value), "hi": highest,
        "names": names, "i": index.to_tag(), "t0": t0_us, "dt": pack_offsets(dt_us.tolist()).to_tag(),
        "x": Column("<f4", value.tobytes()).to_tag(),
    }  # fmt: skip
    return cbor2.dumps(body)


def json_messages(devices: int, count: int, start_us: int) -> Iterator[tuple[str, bytes]]:
    """(topic, payload) of ThingsBoard messages of one reading each, from devices without a gateway."""
    names = [(f"solo-{k:05d}", METRICS[k % 4], CALM[k % 4]) for k in range(devices)]
    prepared = [topics.dev(name) for name, _, _ in names]
    for k in range(count):
        _, metric, value = names[k % devices]
        ts = start_us // 1000 + (k // devices) * 1000
        yield prepared[k % devices], json.dumps({"ts": ts, "values": {metric: value}}).encode()


def rows(series: int, per_series: int, start_us: int) -> tuple[I32, I64, F64]:
    """Columns (series, time_us, value) of a sorted block, for the COPY ceilings."""
    ids = np.repeat(np.arange(1, series + 1, dtype=np.int32), per_series)
    times = np.tile(start_us + np.arange(per_series, dtype=np.int64) * 1_000_000, series)
    return ids, times, np.random.default_rng(2).normal(20.0, 3.0, len(ids))


def publish(port: int, messages: Iterable[tuple[str, bytes]], content_type: str | None) -> int:
    """Publish at QoS 1 and wait for every PUBACK. Returns how many were sent. Bounded window, one connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as link:
        link.sendall(mqtt5.ConnectPacket("citynet-bench-load", clean_start=True).write())
        inbox = Inbox(link)
        inbox.wait(0, mqtt5.ConnAckPacket)
        sent = acked = 0
        block: list[bytes] = []
        for topic, payload in messages:
            packet = mqtt5.PublishPacket(
                topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=sent % 65_535 + 1, content_type=content_type
            )
            block.append(packet.write())
            sent += 1
            if len(block) == 200:
                link.sendall(b"".join(block))
                block.clear()
                while sent - acked > _WINDOW:
                    acked += inbox.count_pubacks()
        link.sendall(b"".join(block))
        while acked < sent:
            acked += inbox.count_pubacks()
        link.sendall(mqtt5.DisconnectPacket().write())
        return sent


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

    def wait(self, _: int, kind: type[object]) -> None:
        while not any(isinstance(packet, kind) for packet in self._packets()):
            pass

    def count_pubacks(self) -> int:
        return sum(isinstance(packet, mqtt5.PubAckPacket) for packet in self._packets())
