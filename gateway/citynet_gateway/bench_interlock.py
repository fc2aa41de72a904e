"""How long an interlock takes from a device's publication to the switched output: a real broker, a real gateway, no link.

The outputs are files that are looked at every millisecond. Beside the values that trip, each round publishes
telemetry, so that the gateway is syncing its spool all the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from citynet import topics
from citynet.errors import CitynetError
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto

ACTIONS_MIN = 500
INTERLOCKS = 8
BESIDE = 50  # telemetry messages a round
GATEWAY = "bench"
MIN_ON_S = 0.1
WAIT_S = 30.0
LOOK_S = 0.001
P99_S_MAX = 0.2  # the goal


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds from the publication of a value beyond its limit to the output being switched."""

    actions: int
    median_s: float
    p99_s: float
    max_s: float

    @property
    def is_met(self) -> bool:
        return self.actions >= ACTIONS_MIN and self.p99_s <= P99_S_MAX


def run(folder: Path, actions: int = ACTIONS_MIN) -> Figures:
    """Measure at least `actions` trips in an empty `folder`. CitynetError if an output is not switched within `WAIT_S`."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedMosquitto(folder / "broker"))
        outputs = [folder / f"output-{number}" for number in range(INTERLOCKS)]
        for path in outputs:
            path.write_text("0", encoding="ascii")
        device = stack.enter_context(_device(broker.port))
        stack.enter_context(_gateway(folder, broker.port))
        _await(outputs, "1")  # the state of the start
        _until_heard(device, outputs)
        taken: list[float] = []
        while len(taken) < actions:
            began_s = time.monotonic()
            _publish(device, 20.0)
            taken += [at_s - began_s for at_s in _await(outputs, "1")]
            _publish(device, 1.0)
            _await(outputs, "0")
    taken.sort()
    return Figures(len(taken), taken[len(taken) // 2], taken[min(len(taken) - 1, int(len(taken) * 0.99))], taken[-1])


def _publish(device: paho.Client, value: float) -> None:
    for number in range(BESIDE):
        device.publish(topics.field("field", GATEWAY, "meter"), json.dumps({"level": number}), qos=1)
    for number in range(INTERLOCKS):
        device.publish(topics.field("field", GATEWAY, f"gas-{number}"), json.dumps({"ch4": value}), qos=1)


def _until_heard(device: paho.Client, outputs: list[Path]) -> None:
    """What is published before the gateway has its session at the broker, nobody keeps."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        _publish(device, 1.0)
        time.sleep(0.5)
        if outputs[0].read_text(encoding="ascii").strip() == "0":
            _await(outputs, "0")
            return
    raise CitynetError(f"the gateway has not listened within {WAIT_S:g} s")


def _await(outputs: list[Path], wanted: str) -> list[float]:
    """When each output was seen to be as `wanted` (monotonic)."""
    found: dict[Path, float] = {}
    end_s = time.monotonic() + WAIT_S
    while len(found) < len(outputs):
        if time.monotonic() > end_s:
            raise CitynetError(f"{len(outputs) - len(found)} outputs were not switched within {WAIT_S:g} s")
        for path in outputs:
            if path not in found and path.read_text(encoding="ascii").strip() == wanted:
                found[path] = time.monotonic()
        time.sleep(LOOK_S)
    return list(found.values())


@contextmanager
def _device(port: int) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-device", protocol=paho.MQTTv5)
    client.max_inflight_messages_set(1_000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def _gateway(folder: Path, port: int) -> Iterator[None]:
    lines = [
        "[gateway]", f"id = '{GATEWAY}'", f"data_dir = '{folder / 'data'}'", "output_refresh_s = 0",
        f"uplink.port = {child.free_port()}", f"local.port = {port}",
    ]  # fmt: skip
    for number in range(INTERLOCKS):
        lines += [
            "[[gateway.outputs]]", "kind = 'file'", f"name = 'output-{number}'", f"path = '{folder / f'output-{number}'}'",
            "[[gateway.interlocks]]", f"name = 'gas-{number}'", f"device = 'gas-{number}'", "metric = 'ch4'",
            f"output = 'output-{number}'", "above = 10.0", f"min_on_s = {MIN_ON_S}",
        ]  # fmt: skip
    config = folder / "gateway.toml"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (our own command)
            [sys.executable, "-m", "citynet", "gateway", "run", "--config", str(config)], stdout=log, stderr=log
        )
        try:
            yield
        finally:
            child.stop(process)
