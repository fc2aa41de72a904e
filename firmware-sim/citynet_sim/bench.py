"""Measurements of the simulated city: load mode with its baseline, live faster than time, into a file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from citynet import wire
from citynet.reading import Reading
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.settings import load
from citynet_sim import export, load_links
from citynet_sim.live import LiveRun, play
from citynet_sim.load import Fleet, into_nothing, stencils
from citynet_sim.settings import SimSettings
from citynet_sim.staging import simulation_of

START_US = 1_767_225_600_000_000  # 2026-01-01
DAY_US = 86_400_000_000
MONTH_READINGS = 2_000 * 30 * 1_440  # 2,000 sensors, a sample a minute
_LISTENER = """
import sys, paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
client.on_connect = lambda c, *_: c.subscribe(sys.argv[2], qos=1)
client.on_subscribe = lambda *_: print("ready", flush=True)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""
Values = dict[str, float]


def encode_only(seconds: float) -> Values:
    """The baseline of load mode: the same envelopes, each encoded from readings."""
    readings = [Reading(f"load-000-{k:05d}", "level_m", START_US + k, 0.4 + k / 1000) for k in range(1000)]
    began_s, cpu_s, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began_s < seconds:
        wire.encode(wire.Header("load-000", wire.TELEMETRY, 1, 1 + count, 1000, 1000 + count), readings)
        count += 1000
    return {
        "readings_per_s": count / (time.monotonic() - began_s),
        "readings_per_cpu_s": count / (time.process_time() - cpu_s),
    }


def load_mode(broker: EmbeddedMosquitto, seconds: float) -> Values:
    """Packets made; published for 1,000 devices over 10 connections, for 100,000 over 200; to a broker without subscriber."""
    base = encode_only(seconds / 2)
    made = into_nothing(Fleet(1_000, 10), seconds / 2)
    found = {
        "encode_only_readings_per_s": base["readings_per_s"],
        "made_readings_per_s": made.readings_per_s,
        "ratio_made_to_encode_only": made.readings / made.cpu_s / base["readings_per_cpu_s"],
    }
    for name, fleet in (("published", Fleet(1_000, 10)), ("published_100000_devices", Fleet(100_000, 200))):
        rates = load_links.publish(
            "127.0.0.1", broker.port, stencils(fleet, 1, START_US), seconds, 0.0, None, lambda _: None, lambda: False
        )
        found |= {
            f"{name}_readings_per_s": rates.readings_per_s,
            f"{name}_readings_per_cpu_s": rates.readings / rates.cpu_s,
            f"{name}_unacknowledged": rates.batches - rates.acked,
        }
    found["ratio_published_to_encode_only"] = found["published_readings_per_s"] / base["readings_per_s"]
    return found


def live_mode(broker: EmbeddedMosquitto, folder: Path, hours: float) -> Values:
    """The default city at a sample a minute, to a broker with a subscriber, as fast as it goes."""
    listener = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _LISTENER, str(broker.port), "field/#"], stdout=subprocess.PIPE
    )
    try:
        assert listener.stdout is not None  # noqa: S101
        listener.stdout.readline()
        flags = {"broker": {"port": broker.port}, "sampling": {"every_s": 60.0}, "speed": 50_000.0, "scenario": "calm"}
        settings = load(SimSettings, None, flags)
        run = LiveRun(
            simulation_of(settings, START_US),
            settings,
            START_US,
            START_US + round(hours * 3.6e9),
            folder / "truth.jsonl",
        )
        began_s, cpu_s = time.monotonic(), time.process_time()
        end = asyncio.run(play(run, asyncio.Event()))
        wall_s, used_s = time.monotonic() - began_s, time.process_time() - cpu_s
    finally:
        child.stop(listener)
    return {
        "speed": hours * 3600 / wall_s,
        "speed_by_cpu": hours * 3600 / used_s,
        "readings_per_s": end.readings / wall_s,
        "messages_lost": end.sent - end.acked,
    }


def file_mode(folder: Path, days: float) -> Values:
    """Columns of the default city at a sample a minute; what a month of 2,000 sensors takes of a core at that rate."""
    settings = load(SimSettings, None, {"sampling": {"every_s": 60.0}, "scenario": "calm"})
    simulation = simulation_of(settings, START_US)
    cpu_s = time.process_time()
    _, readings = export.write(
        simulation, START_US, START_US + round(days * DAY_US), folder / "days.npz", lambda *_: None
    )
    used_s = time.process_time() - cpu_s
    return {"readings_per_cpu_s": readings / used_s, "month_of_2000_sensors_cpu_s": used_s * MONTH_READINGS / readings}
