"""Load for the benchmarks: the readings of a simulated fleet, as envelopes, as single messages and as columns.

Values are those of cheap sensors: a slow drift and two steps of noise around a calm value, rounded to the sensor's resolution,
so decimal fractions that fill all 64 bits. Times are milliseconds with a jitter of a fiftieth of the period.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import cbor2
import numpy as np

from citynet import topics, wire
from citynet.batch import F64, I32, I64
from citynet.columns import Column, pack_index, pack_offsets

METRICS = ("ch4_lel", "water_pressure_mpa", "level_m", "chlorine_mg_l")  # all of them have armed rules
CALM = (2.0, 0.35, 0.4, 0.5)  # values at which no rule fires
RESOLUTION = (0.1, 0.001, 0.001, 0.01)
_DECIMALS = (1, 3, 3, 2)
_NOISE_STEPS = 2.0
_DRIFT = 0.05  # of the calm value, over a day


@dataclass(frozen=True, slots=True)
class Fleet:
    """Gateways that send batches of `rounds` readings of each of their series; the default is 1,000 of 40 series."""

    gateways: int
    series_each: int = 40
    rounds: int = 25
    period_us: int = 1_000_000

    @property
    def series(self) -> int:
        return self.gateways * self.series_each

    @property
    def batch(self) -> int:
        """Readings of one batch."""
        return self.series_each * self.rounds

    def turns(self, readings: int) -> int:
        """Batches a gateway, for about this many readings, at least one."""
        return max(1, round(readings / (self.gateways * self.batch)))

    def total(self, turns: int) -> int:
        return turns * self.gateways * self.batch

    def names(self, gateway: int) -> list[str]:
        """Names of a gateway's series: four metrics a device."""
        return [f"dev-{gateway:04d}-{k // 4:03d}/{METRICS[k % 4]}" for k in range(self.series_each)]

    def sources(self) -> dict[str, str]:
        """Every series and the gateway it is heard through."""
        return {name: gateway_name(g) for g in range(self.gateways) for name in self.names(g)}


@dataclass(slots=True)
class Draft:
    """A batch that is about to be encoded: times and values of shape (rounds, series)."""

    gateway: int
    turn: int
    time_us: I64
    value: F64


def gateway_name(gateway: int) -> str:
    return f"bench-{gateway:04d}"


def drafts(fleet: Fleet, turns: int, start_us: int, *, seed: int = 1) -> Iterator[Draft]:
    """The fleet's batches in the order of sending: every gateway's first, every gateway's second, …"""
    random = np.random.default_rng(seed)
    shape = (fleet.rounds, fleet.series_each)
    jitter_ms = fleet.period_us // 50_000
    for turn in range(turns):
        first = turn * fleet.rounds
        steps = start_us + (first + np.arange(fleet.rounds, dtype=np.int64))[:, None] * fleet.period_us
        for gateway in range(fleet.gateways):
            jitter = random.integers(-jitter_ms, jitter_ms + 1, shape) * 1_000
            yield Draft(gateway, turn, steps // 1_000 * 1_000 + jitter, _values(random, steps, fleet.series_each))


def _values(random: np.random.Generator, steps_us: I64, series: int) -> F64:
    """Values of shape (rounds, series), rounded to each sensor's resolution."""
    sensor = np.arange(series) % len(METRICS)
    calm, resolution = np.array(CALM)[sensor], np.array(RESOLUTION)[sensor]
    day = np.sin(2 * np.pi * steps_us / 86_400e6 + np.arange(series))
    noise = random.normal(0.0, _NOISE_STEPS, day.shape) * resolution
    raw = calm * (1 + _DRIFT * day) + noise
    found = np.empty(day.shape)
    for k, decimals in enumerate(
        _DECIMALS
    ):  # what a device prints and a gateway reads: the double nearest to a decimal
        found[:, k :: len(METRICS)] = np.round(raw[:, k :: len(METRICS)], decimals)
    return np.maximum(found, 0.0)


def batch_messages(fleet: Fleet, turns: int, start_us: int) -> Iterator[tuple[str, bytes]]:
    """(topic, payload) of the fleet's batch envelopes in CBOR, from `start_us` on."""
    encode = Encoder(fleet, turns)
    for draft in drafts(fleet, turns, start_us):
        yield topics.up(gateway_name(draft.gateway)), encode(draft)


class Encoder:
    """Drafts to envelopes as a gateway would send them."""

    def __init__(self, fleet: Fleet, turns: int) -> None:
        self._fleet = fleet
        self._highest = turns * fleet.batch
        self._index = pack_index(list(range(fleet.series_each)) * fleet.rounds, fleet.series_each).to_tag()
        self._names = [fleet.names(gateway) for gateway in range(fleet.gateways)]

    def __call__(self, draft: Draft) -> bytes:
        times = draft.time_us.ravel()
        t0_us = int(times[0])
        body = {
            "v": wire.VERSION, "gw": gateway_name(draft.gateway), "st": wire.TELEMETRY, "ep": 1,
            "s0": draft.turn * self._fleet.batch + 1, "n": self._fleet.batch, "hi": self._highest,
            "names": self._names[draft.gateway], "i": self._index, "t0": t0_us,
            "dt": pack_offsets((times - t0_us).tolist()).to_tag(),
            "x": Column("<f8", draft.value.astype("<f8").tobytes()).to_tag(),
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
    """Columns (series, time_us, value) of a sorted block of readings at 1 Hz; series ids from 1."""
    ids = np.repeat(np.arange(1, series + 1, dtype=np.int32), per_series)
    steps = start_us + np.arange(per_series, dtype=np.int64)[:, None] * 1_000_000
    values = _values(np.random.default_rng(2), steps, series)
    return ids, np.tile(steps[:, 0], series), np.ascontiguousarray(values.T).ravel()
