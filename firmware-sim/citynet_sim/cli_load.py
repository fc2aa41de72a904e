"""Command ``citynet sim load``: batch envelopes of many devices, for load tests."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from dataclasses import asdict
from types import FrameType
from typing import Annotated

import typer

from citynet.runtime.command import EXIT_FAILURE, ConfigOption, JsonOption, command
from citynet.runtime.settings import load as load_settings
from citynet_sim import load_links
from citynet_sim.load import Fleet, Rates, into_nothing, stencils
from citynet_sim.settings import SimSettings

DURATION_S_MAX = 3600.0
PROGRESS_S = 2.0
HISTORY_US = 86_400_000_000  # at full speed the readings are of the last day, and the load ends when it reaches now


@command
def load(
    config: ConfigOption = None,
    devices: Annotated[int, typer.Option(help="How many devices.")] = 1_000,
    gateways: Annotated[int, typer.Option(help="How many gateways, each a connection.")] = 10,
    metrics: Annotated[int, typer.Option(help="Series of a device.")] = 4,
    rate: Annotated[float, typer.Option(min=0.0, help="Readings a second; 0: as fast as the broker takes them.")] = 0.0,
    duration: Annotated[float, typer.Option(min=0.1, max=DURATION_S_MAX, help="Seconds.")] = 10.0,
    broker_host: Annotated[str | None, typer.Option(help="The server's broker.")] = None,
    broker_port: Annotated[int | None, typer.Option()] = None,
    sink: Annotated[bool, typer.Option("--sink", help="No broker: how fast packets can be made.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same values.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Publish batch envelopes as gateways would, at a steady rate or as fast as it goes; exit 1 if the broker refused any.

    The readings are made up, not those of the city. A load does not repeat what got lost: it measures, it does not deliver.
    """
    interval_us = round(devices * metrics / rate * 1e6) if rate else 1_000_000
    fleet = Fleet(devices, gateways, metrics, max(interval_us, 1), seed)
    if sink:
        rates = into_nothing(fleet, duration)
    else:
        endpoint = {k: v for k, v in {"host": broker_host, "port": broker_port}.items() if v is not None}
        settings = load_settings(SimSettings, config, {"broker": endpoint or None})
        now_us = time.time_ns() // 1000
        # A rate paces the readings' own times as well: the last one of a batch is of now.
        start_us = now_us - fleet.rounds() * fleet.interval_us if rate else now_us - HISTORY_US
        made = stencils(fleet, secrets.randbits(62) + 1, start_us)
        until_us = None if rate else now_us
        rates = load_links.publish(
            settings.broker.host, settings.broker.port, made, duration, rate, until_us, _Progress(), _Stop()
        )
    if as_json:
        print(json.dumps({"seed": seed, **asdict(fleet), **asdict(rates), "readings_per_s": rates.readings_per_s}))
    else:
        print(
            f"{rates.readings} readings in {rates.batches} batches, {rates.bytes} bytes, {rates.seconds:.1f} s: "
            f"{rates.readings_per_s:.0f} readings/s; {rates.acked} acknowledged, {rates.unheard} of them without a subscriber, "
            f"{rates.refused} refused; ended: {rates.ended}; seed {seed}"
        )
    if rates.refused or (not sink and rates.acked + rates.refused < rates.batches):
        raise typer.Exit(EXIT_FAILURE)


class _Progress:
    """Says on stderr, every two seconds, how fast it goes."""

    def __init__(self) -> None:
        self._next_s, self._readings, self._seconds = PROGRESS_S, 0, 0.0

    def __call__(self, rates: Rates) -> None:
        if rates.seconds >= self._next_s:
            speed = (rates.readings - self._readings) / (rates.seconds - self._seconds)
            print(f"{rates.seconds:.0f} s, {rates.readings} readings, {speed:.0f} readings/s", file=sys.stderr)
            self._next_s, self._readings, self._seconds = rates.seconds + PROGRESS_S, rates.readings, rates.seconds


class _Stop:
    """Whether SIGINT or SIGTERM came: the load then ends in order, with its figures."""

    def __init__(self) -> None:
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True

    def __call__(self) -> bool:
        return self._came
