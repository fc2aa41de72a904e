"""When the service syncs. The first turn in which telemetry waits is never its second, so what syncs there is not the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from citynet.control import Stream
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.cli import build
from citynet_gateway.drivers.port import Offer
from citynet_gateway.intake import Part
from citynet_gateway.pushed_config import PushedConfig
from citynet_gateway.service import Gateway
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.timekeeper import wall_us

Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def one(**values: object) -> Gateway:
        settings = GatewaySettings.model_validate({"data_dir": tmp_path / "data", "heartbeat_s": 0, **values})
        made.append(build(settings, PushedConfig(LocalFiles(), None, {}, wall_us)))
        return made[-1]

    yield one
    for gateway in made:
        gateway._spool.close()


def offer(stream: Stream, readings: int = 1) -> Offer:
    return Offer(None, None, (Part(stream, tuple(Reading("d", f"m{k}", k, 1.0) for k in range(readings))),))


def pending(gateway: Gateway, *offers: Offer) -> tuple[int, int]:
    """Records of telemetry and alarms that one turn with these offers leaves unsynced."""
    for item in offers:
        gateway._inbox.put_own(item)
    gateway.turn(0.0)
    return gateway._spool.pending(TELEMETRY), gateway._spool.pending(ALARM)


def test_telemetry_waits_and_an_alarm_does_not(make: Make) -> None:
    assert pending(make(), *[offer(TELEMETRY)] * 300, offer(ALARM)) == (300, 0)


def test_enough_bytes_are_synced_at_once(make: Make) -> None:
    assert pending(make(sync_bytes_max=2_000), offer(TELEMETRY, 400)) == (0, 0)


@pytest.mark.parametrize(("receive_max", "offers", "left"), [(8, 3, 3), (8, 4, 0), (1, 1, 0)])
def test_sources_that_would_stop_are_answered_at_once(make: Make, receive_max: int, offers: int, left: int) -> None:
    assert pending(make(receive_max=receive_max), *[offer(TELEMETRY)] * offers) == (left, 0)
