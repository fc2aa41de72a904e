"""docs/drivers.md is held to the code: its example is a driver that works, its tables say what is in the modules."""

from __future__ import annotations

import queue
import re
import socket
import time
from contextlib import closing
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.drivers.hj212.factors import FACTORS, metric_of
from citynet_gateway.drivers.port import Context, Driver, Offer, Resumed
from citynet_gateway.intake import Sorter
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import LocalFiles
from tests.patience import DEADLINE_S

PAGE = (Path(__file__).parents[2] / "docs" / "drivers.md").read_text(encoding="utf-8")


@pytest.fixture
def example() -> ModuleType:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = ModuleType("example")
    exec(compile(source, "docs/drivers.md", "exec"), module.__dict__)  # noqa: S102
    return module


def test_the_example_answers_after_the_sync_and_keeps_everything(example: ModuleType) -> None:
    context = Context(GatewaySettings(), LocalFiles(), lambda: 7, time.monotonic, Random(1), Sorter(["*_alarm"]))
    offers: queue.Queue[Offer | Resumed] = queue.Queue()
    driver: Driver = example.Lines(context, 0)
    driver.start(offers.put)
    with closing(socket.create_connection(("127.0.0.1", driver.port), 10)) as device:  # type: ignore[attr-defined]
        found = []
        for line in (b"pump-1 flow 2.5\n", b"pump-1 leak_alarm 1\n", b"pump-1 flow much\n", b"\xff\n"):
            device.sendall(line)
            offer = offers.get(timeout=DEADLINE_S)
            assert isinstance(offer, Offer)
            device.settimeout(0.05)
            with pytest.raises(TimeoutError):
                device.recv(10)  # nothing before the sync
            driver.answer([offer])
            device.settimeout(DEADLINE_S)
            assert device.recv(10) == b"ok\n"
            found.append(offer)
    driver.pause()
    driver.stop()
    assert driver.trouble() == ""
    parts = [offer.parts[0] for offer in found]
    assert [part.stream for part in parts] == [TELEMETRY, ALARM, TELEMETRY, TELEMETRY]
    assert [[(item.name, item.value) for item in part.readings] for part in parts] == [
        [("pump-1/flow", 2.5)], [("pump-1/leak_alarm", 1.0)], [], [],
    ]  # fmt: skip
    assert [note.reason.partition(" ")[0] for part in parts for note in part.notes] == [
        "not-a-number",
        "bad-identifier",
    ]


def test_the_table_of_factors_is_that_of_the_driver() -> None:
    told = dict(re.findall(r"\| (\w+) \| `(\w+)` \|", PAGE))
    assert told == {code: metric_of(factor, "", "Rtd") for code, factor in FACTORS.items()}
