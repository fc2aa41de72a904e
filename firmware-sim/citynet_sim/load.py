"""Load: batch envelopes of many devices, built once and changed in place, as fast as a broker takes them or at a steady rate.

An envelope is encoded once per gateway; every further one differs in its sequence number, its time and its values, which are
written into the packet where they stand. So a batch costs a copy of its values and three integers, not an encoding.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cbor2
import mqtt5
import numpy as np

from citynet import topics, wire
from citynet.columns import Column, pack_index
from citynet.errors import ConfigError
from citynet_sim.noise import F64, normals

METRICS = (("ch4_lel", 2.0, 1), ("water_pressure_mpa", 0.35, 3), ("level_m", 0.4, 3), ("chlorine_mg_l", 0.5, 2))
BATCH_READINGS = 1_000
DEVICES_MAX, GATEWAYS_MAX = 1_000_000, 1_000
_POOL_ROUNDS = 64  # different values of a series before they come again
_NOISE_STEPS = 2.0
_BLOCK = 256
# Integers that take eight bytes in CBOR and stand nowhere else: what is written over.
_SEQ, _HIGHEST, _TIME = 0x5EA1_0000_0000_0001, 0x5EA1_0000_0000_0002, 0x5EA1_0000_0000_0003


@dataclass(frozen=True, slots=True)
class Fleet:
    """`devices` of `metrics` series each, shared equally by `gateways`; a series has a reading every `interval_us`."""

    devices: int
    gateways: int
    metrics: int = 4
    interval_us: int = 1_000_000
    seed: int = 1

    def problems(self) -> list[str]:
        """What makes no sense, one line each."""
        found = []
        if not 1 <= self.gateways <= GATEWAYS_MAX:
            found.append(f"--gateways {self.gateways}: 1 to {GATEWAYS_MAX}")
        if not max(self.gateways, 1) <= self.devices <= DEVICES_MAX:
            found.append(f"--devices {self.devices}: one a gateway to {DEVICES_MAX}")
        if not 1 <= self.metrics <= len(METRICS):
            found.append(f"--metrics {self.metrics}: 1 to {len(METRICS)}")
        if not found and self.series_of(0) > wire.READINGS_MAX:
            found.append(
                f"--devices: {self.series_of(0)} series a gateway, at most {wire.READINGS_MAX} fit an envelope"
            )
        return found

    def devices_of(self, gateway: int) -> int:
        """How many devices a gateway has."""
        return (gateway + 1) * self.devices // self.gateways - gateway * self.devices // self.gateways

    def series_of(self, gateway: int) -> int:
        return self.devices_of(gateway) * self.metrics

    def rounds(self) -> int:
        """Readings of each series in a batch: about `BATCH_READINGS` in all, at least one."""
        return max(1, BATCH_READINGS * self.gateways // (self.devices * self.metrics))

    def names(self, gateway: int) -> list[str]:
        """Series of a gateway, ``device/metric``."""
        return [
            f"load-{gateway:03d}-{number:05d}/{METRICS[k][0]}"
            for number in range(self.devices_of(gateway))
            for k in range(self.metrics)
        ]


def gateway_name(gateway: int) -> str:
    return f"load-{gateway:03d}"


class Stencil:
    """The PUBLISH packet of one gateway. `next` gives it for the next batch, in place: it holds until the next call."""

    def __init__(self, fleet: Fleet, gateway: int, epoch: int, start_us: int, values: F64) -> None:
        series, rounds = fleet.series_of(gateway), fleet.rounds()
        self.readings = series * rounds
        self._seq, self._time_us, self._span_us = 1, start_us, rounds * fleet.interval_us
        self._values, self._series = values, series
        self._at = gateway * 7 % _POOL_ROUNDS
        self._step = rounds
        marks = np.full(self.readings, np.frombuffer(b"\x5e\xa1\x5e\xa1\x5e\xa1\x5e\xa1", "<f8")[0])
        offsets = np.repeat(np.arange(rounds, dtype=np.int64) * fleet.interval_us, series)
        wide = int(offsets[-1]) > 0x7FFF_FFFF
        body = {
            "v": wire.VERSION, "gw": gateway_name(gateway), "st": wire.TELEMETRY, "ep": epoch, "s0": _SEQ,
            "n": self.readings, "hi": _HIGHEST, "names": fleet.names(gateway),
            "i": pack_index(list(range(series)) * rounds, series).to_tag(), "t0": _TIME,
            "dt": Column("<i8" if wide else "<i4", offsets.astype("<i8" if wide else "<i4").tobytes()).to_tag(),
            "x": Column("<f8", marks.tobytes()).to_tag(),
        }  # fmt: skip
        payload = cbor2.dumps(body)
        if len(payload) > wire.BYTES_MAX:
            raise ConfigError(
                [f"--devices: an envelope of {len(payload)} bytes; at most {wire.BYTES_MAX}: more gateways"]
            )
        self.packet = bytearray(
            mqtt5.PublishPacket(
                topics.up(gateway_name(gateway)), payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=0xFFFF,
                content_type=wire.CBOR,
            ).write()
        )  # fmt: skip
        self._places = [self._place(struct.pack(">Q", mark)) for mark in (_SEQ, _HIGHEST, _TIME)]
        self._column = self._place(marks.tobytes())
        topic = topics.up(gateway_name(gateway)).encode()
        self._packet_id = self._place(b"\xff\xff", self.packet.index(topic) + len(topic))

    def _place(self, mark: bytes, start: int = 0) -> int:
        at = self.packet.find(mark, start)
        if at < 0:
            raise ValueError("the mark is not in the packet")
        return at

    @property
    def time_us(self) -> int:
        """Time of the next batch's first reading (µs since 1970)."""
        return self._time_us

    def next(self, packet_id: int) -> bytearray:
        """The packet of the next batch, under this packet identifier."""
        last = self._seq + self.readings - 1
        for at, number in zip(self._places, (self._seq, last, self._time_us), strict=True):
            struct.pack_into(">Q", self.packet, at, number)
        struct.pack_into(">H", self.packet, self._packet_id, packet_id)
        start = self._at * self._series
        chosen = self._values[start : start + self.readings]
        self.packet[self._column : self._column + 8 * self.readings] = chosen.tobytes()
        self._at = (self._at + self._step) % _POOL_ROUNDS
        self._seq, self._time_us = last + 1, self._time_us + self._span_us
        return self.packet


def values(fleet: Fleet) -> F64:
    """A pool of values for every gateway, round after round: a calm value, two steps of noise, on the sensor's steps.

    Decimal fractions, as sensors print them, so they fill 64 bits. A batch begins at any of the first `_POOL_ROUNDS` rounds.
    """
    series = max(fleet.series_of(gateway) for gateway in (0, fleet.gateways - 1))
    rounds = _POOL_ROUNDS + fleet.rounds()
    count = series * rounds
    drawn = [normals(fleet.seed, "load", k, _BLOCK) for k in range(-(-min(count, 1 << 18) // _BLOCK))]
    noise = np.resize(np.concatenate(drawn), count).reshape(rounds, series)
    found = np.empty((rounds, series))
    for k in range(fleet.metrics):
        _, calm, decimals = METRICS[k]
        column = slice(k, None, fleet.metrics)
        found[:, column] = np.maximum(np.round(calm + _NOISE_STEPS * noise[:, column] * 10.0**-decimals, decimals), 0.0)
    return found.ravel()


def stencils(fleet: Fleet, epoch: int, start_us: int) -> list[Stencil]:
    """One a gateway. ConfigError: what is asked for makes no sense, every mistake one line."""
    if problems := fleet.problems():
        raise ConfigError(problems)
    pool = values(fleet)
    return [Stencil(fleet, gateway, epoch, start_us, pool) for gateway in range(fleet.gateways)]


@dataclass(slots=True)
class Rates:
    """What was handed over, in how many seconds (wall clock) and how much processor time."""

    batches: int = 0
    readings: int = 0
    bytes: int = 0
    acked: int = 0
    unheard: int = 0  # acknowledged with "no matching subscribers"
    refused: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    ended: str = "duration"

    @property
    def readings_per_s(self) -> float:
        return self.readings / self.seconds if self.seconds else 0.0


def into_nothing(fleet: Fleet, seconds: float) -> Rates:
    """How fast packets can be made at all: they are made and thrown away."""
    made = stencils(fleet, 1, 0)
    rates, began_s, cpu_s = Rates(), time.monotonic(), time.process_time()
    for number, stencil in enumerate(_round_robin(made)):
        rates.bytes += len(stencil.next(number % 65_535 + 1))
        rates.batches += 1
        rates.readings += stencil.readings
        if not number % 16 and time.monotonic() - began_s >= seconds:
            break
    rates.seconds, rates.cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    return rates


def _round_robin(made: list[Stencil]) -> Iterator[Stencil]:
    while True:
        yield from made
