"""The gateway process with field buses: killed while it polls; light where nothing is configured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from random import Random

import pytest

from citynet.notes import EventNote
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_sim.protocols.modbus import Device, SerialServer
from citynet_sim.protocols.sysfs import SensorTree
from tests.gateway import GatewayProcess, ServerPeer, wait_for
from tests.patience import DEADLINE_S

ROUNDS = 6


class Cabinet:
    """A serial line with two devices, one of them dead; a thermometer; the gateway, its broker, the server's stand-in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = count(1)
        self.meter = Device(holding={0: lambda: next(ticks) % 65_536})
        self.line = SerialServer({1: self.meter, 2: Device(silent=True)}, folder / "ttyBUS")
        tree = SensorTree(folder / "sys")
        tree.onewire("28-000005e2fdc3", 21_437)
        register = {"metric": "n", "address": 0}
        bus = {
            "name": "rs485", "serial": str(self.line.path), "baud": 115_200, "timeout_ms": 100,
            "devices": [
                {"unit": 1, "device": "meter", "interval_s": 0.05, "registers": [register]},
                {"unit": 2, "device": "dead", "interval_s": 0.05, "registers": [register]},
            ],
        }  # fmt: skip
        wire = {"sensor": "28-000005e2fdc3", "device": "cabinet", "metric": "air_c", "interval_s": 0.2}
        monkeypatch.setenv("CITYNET_GATEWAY_MODBUS", json.dumps([bus]))
        monkeypatch.setenv("CITYNET_GATEWAY_ONEWIRE", json.dumps([wire]))
        monkeypatch.setenv("CITYNET_GATEWAY_SYSFS", str(tree.root))
        self.broker = EmbeddedMosquitto(folder / "broker")
        self.broker.start()
        self.gateway = GatewayProcess(folder, self.broker, self.broker)
        self.server = ServerPeer(self.broker.port)

    def numbers(self, name: str = "meter/n") -> list[float]:
        return [row[4] for row in list(self.server.stored) if row[3] == name]

    def close(self) -> None:
        self.gateway.kill()
        self.server.close()
        self.broker.stop()
        self.line.unplug()


@pytest.fixture
def cabinet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cabinet]:
    found = Cabinet(folder, monkeypatch)
    yield found
    found.close()


def test_killed_while_it_polls_nothing_accepted_is_lost_or_doubled(cabinet: Cabinet) -> None:
    random, accepted = Random(3), {}
    for _ in range(ROUNDS):
        seen = len(cabinet.numbers())
        cabinet.gateway.start()
        wait_for(lambda seen=seen: len(cabinet.numbers()) > seen + 5, "readings")
        time.sleep(random.uniform(0.0, 0.3))  # any moment will do
        cabinet.gateway.kill()
        for epoch in cabinet.gateway.spool()["epochs"]:
            accepted[epoch["stream"], epoch["epoch"]] = epoch["last"]
    cabinet.gateway.start()
    seen = len(cabinet.numbers())
    wait_for(lambda: len(cabinet.numbers()) > seen + 5, "it goes on")
    assert cabinet.gateway.stop() == 0
    numbers = cabinet.numbers()
    # The meter says every number once: a doubled reading would repeat one, a reordered one would go back.
    assert all(before < after for before, after in pairwise(numbers))
    stored = {key: cabinet.server.cursors.get(key, 0) for key in accepted}
    assert stored == accepted
    assert sum(accepted.values()) > 0
    assert set(cabinet.numbers("cabinet/air_c")) == {21.437}


def test_the_status_tells_the_troubles_of_field_and_serial_port(cabinet: Cabinet) -> None:
    cabinet.gateway.start()

    def trouble() -> str:
        return cabinet.server.statuses[-1].drivers.get("modbus-rs485", "") if cabinet.server.statuses else ""

    wait_for(lambda: trouble() == "1 of 2 devices silent: dead: no answer within 100 ms", "the dead device")
    cabinet.line.unplug()
    wait_for(lambda: trouble().endswith("ttyBUS: No such file or directory"), "the port that vanished")
    seen = len(cabinet.numbers())
    cabinet.line.plug()
    wait_for(lambda: len(cabinet.numbers()) > seen + 3, "readings again")
    assert set(cabinet.server.statuses[-1].drivers) == {"local-mqtt", "modbus-rs485", "sysfs"}

    def told() -> bool:
        return any(isinstance(note, EventNote) and note.code == "device_silent" for *_, note in cabinet.server.notes)

    wait_for(told, "the event of the dead device")


def test_nothing_of_a_bus_is_imported_where_none_is_configured() -> None:
    """pymodbus and its asyncio would cost every gateway memory that only some need."""
    code = (
        "import sys; from pathlib import Path; from random import Random\n"
        "from citynet_gateway.drivers import registry; from citynet_gateway.drivers.port import Context\n"
        "from citynet_gateway.outputs import registry as outputs\n"
        "from citynet_gateway.settings import GatewaySettings; from citynet_gateway.intake import Sorter\n"
        "settings = GatewaySettings()\n"
        "registry.build(Context(settings, None, None, None, Random(1), Sorter(())))\n"
        "outputs.build(settings, [])\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('pymodbus', 'serial', 'gpiod')"
        " or 'sysfs.driver' in name or 'modbus.link' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert done.stdout.strip() == ""
