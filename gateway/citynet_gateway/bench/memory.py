"""Resident memory of a gateway at rest, by the driver that it has loaded: real processes, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from citynet.runtime import child
from citynet_gateway.bench.scene import Scene

SETTLE_S = 3.0
_REGISTER = {"metric": "level_m", "address": 0}


def drivers() -> Mapping[str, Mapping[str, object]]:
    """Settings by what they load. The sources are not there: a driver that waits for them has everything loaded."""
    plc = {"device": "pump-1", "unit": 1, "registers": [_REGISTER]}
    value = {"path": "t", "metric": "temperature_c"}
    return {
        "local MQTT only": {},
        "JSON mapping": {"mappings": [{"topic": "plc/+/data", "device": "plc-{2}", "values": [value]}]},
        "Linux sensors": {"onewire": [{"sensor": "28-000005e2fdc3", "device": "cabinet", "metric": "air_c"}]},
        "HTTP push": {"push": {"port": child.free_port()}},
        "HJ 212": {"hj212": {"port": child.free_port(), "stations": [{"mn": "1", "device": "river-3"}]}},
        "Modbus": {"modbus": [{"name": "plc", "host": "127.0.0.1", "port": child.free_port(), "devices": [plc]}]},
    }


def resident_mib(folder: Path, settings: Mapping[str, object]) -> float:
    """Of a gateway with these settings, some seconds after its start, MiB."""
    with Scene(folder, settings) as scene:
        scene.start()
        time.sleep(SETTLE_S)
        return scene.memory_mib()
