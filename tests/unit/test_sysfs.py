"""Sensors that Linux shows in files, with a directory tree in the kernel's place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from citynet.quality import BAD, GOOD, OUT_OF_RANGE, UNCERTAIN
from citynet_gateway.drivers.sysfs import driver as module
from citynet_gateway.drivers.sysfs.driver import Sysfs
from citynet_gateway.settings import GatewaySettings
from citynet_sim.protocols.sysfs import SensorTree
from tests.fieldbus import Collector, context, running
from tests.gateway import wait_for

AIR = "28-000005e2fdc3"
WATER = "28-0000061f2aab"


@pytest.fixture
def tree(tmp_path: Path) -> SensorTree:
    return SensorTree(tmp_path / "sys")


@contextmanager
def sensors(tree: SensorTree, **settings: Any) -> Iterator[Collector]:
    driver = Sysfs(context(GatewaySettings.model_validate({"sysfs": tree.root, **settings})))
    with running(driver) as got:
        yield got


def wire(address: str, metric: str, **values: Any) -> dict[str, Any]:
    return {"sensor": address, "device": "cabinet", "metric": metric, "interval_s": 0.1, **values}


def chip(sensor: str, *channels: dict[str, Any]) -> dict[str, Any]:
    return {"sensor": sensor, "device": "cabinet", "interval_s": 0.1, "channels": list(channels)}


def latest(got: Collector, metric: str) -> tuple[float, int]:
    reading = got.readings(f"cabinet/{metric}")[-1]
    return reading.value, reading.quality


def test_channels_are_raw_offset_scale_or_ready(tree: SensorTree) -> None:
    tree.iio(
        0, "mcp3422", {"in_voltage0_raw": 1200, "in_voltage1_raw": 8, "in_voltage_scale": "0.5", "in_voltage1_scale": 2}
    )
    tree.iio(
        1, "bme280", {"in_temp_input": 21480, "in_humidityrelative_input": "45320", "in_pressure_input": "101.325"}
    )
    tree.iio(2, "ltr303", {"in_temp_raw": -100, "in_temp_offset": 140, "in_temp_scale": 1000, "label": "shelf"})
    volts = [{"channel": f"voltage{k}", "metric": f"v{k}", "scale": 0.001} for k in (0, 1)]
    air = [
        {"channel": "temp", "metric": "air_c", "scale": 0.001},
        {"channel": "humidityrelative", "metric": "air_rh", "scale": 0.001},
        {"channel": "pressure", "metric": "air_hpa", "scale": 10, "max": 1000},
    ]
    shelf = {"channel": "temp", "metric": "shelf_c", "scale": 0.001, "offset": 0.5}
    with sensors(tree, iio=[chip("iio:device0", *volts), chip("bme280", *air), chip("shelf", shelf)]) as got:
        wait_for(
            lambda: {"cabinet/v1", "cabinet/air_hpa", "cabinet/shelf_c"} <= {r.name for r in got.readings()}, "all"
        )
        assert latest(got, "v0") == (0.6, GOOD)
        assert latest(got, "v1") == (0.016, GOOD)
        assert latest(got, "air_c") == (21.48, GOOD)
        assert latest(got, "air_rh") == (45.32, GOOD)
        assert latest(got, "air_hpa") == (1013.25, UNCERTAIN | OUT_OF_RANGE)
        assert latest(got, "shelf_c") == (40.5, GOOD)
        assert got.driver.trouble() == ""


def test_a_channel_that_gives_no_number_is_bad_and_costs_only_itself(tree: SensorTree) -> None:
    folder = tree.iio(0, "bme280", {"in_temp_input": "n/a", "in_pressure_input": 100})
    (folder / "in_humidityrelative_raw").mkdir()  # reading it fails
    channels = [{"channel": name, "metric": name} for name in ("temp", "pressure", "humidityrelative", "voltage0")]
    with sensors(tree, iio=[chip("bme280", *channels)]) as got:
        wait_for(got.readings, "readings")
        assert latest(got, "pressure") == (100.0, GOOD)
        for name in ("temp", "humidityrelative", "voltage0"):
            value, quality = latest(got, name)
            assert isnan(value)
            assert quality == BAD
        trouble = got.driver.trouble()
        for words in (
            "in_temp_input says 'n/a'",
            "in_humidityrelative_raw: Is a directory",
            "in_voltage0_raw: No such file",
        ):
            assert words in trouble


def test_two_devices_of_one_name_must_be_told_apart(tree: SensorTree) -> None:
    for number in (0, 1):
        tree.iio(number, "ads1115", {"in_voltage0_raw": number})
    channel = {"channel": "voltage0", "metric": "v"}
    with sensors(tree, iio=[chip("ads1115", channel), chip("iio:device1", channel), chip("other", channel)]) as got:
        wait_for(got.readings, "readings")
        for words in ("other: not among", "2 IIO devices have this name (iio:device0, iio:device1)"):
            wait_for(lambda words=words: words in got.driver.trouble(), words)
        assert latest(got, "v") == (1.0, GOOD)


def test_thermometers_are_read_and_what_is_wrong_is_bad(tree: SensorTree) -> None:
    tree.onewire(AIR, 21_437)
    tree.onewire(WATER, -1_250)
    with sensors(tree, onewire=[wire(AIR, "air_c"), wire(WATER, "water_c", min=0)]) as got:
        wait_for(lambda: got.readings("cabinet/water_c"), "readings")
        assert latest(got, "air_c") == (21.437, GOOD)
        assert latest(got, "water_c") == (-1.25, UNCERTAIN | OUT_OF_RANGE)
        tree.onewire(AIR, 85_000)
        wait_for(lambda: latest(got, "air_c") == (85.0, UNCERTAIN), "the value of a power-on is uncertain")
        for fault, words in (
            (lambda: tree.onewire(AIR, 21_000, crc_right=False), "wrong CRC"),
            (lambda: tree.short_circuit(AIR), "short circuit"),
            (lambda: (tree.root / "bus/w1/devices" / AIR / "w1_slave").write_text(""), "w1_slave says ''"),
        ):
            fault()
            wait_for(lambda words=words: words in got.driver.trouble(), words)
            wait_for(lambda: latest(got, "air_c")[1] == BAD, "its reading, which comes behind the trouble")
            tree.onewire(AIR, 20_000)
            wait_for(lambda: latest(got, "air_c") == (20.0, GOOD), "it is back")
            assert got.driver.trouble() == ""


def test_one_wrong_checksum_is_tried_again(tree: SensorTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look finds what the kernel shows after its next conversion."""
    wrong = tree.onewire(AIR, 99_000, crc_right=False) / "w1_slave"
    right = wrong.read_text().replace("NO", "YES").replace("99000", "19000")
    texts, read_bytes = count(), Path.open

    def conversions(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == wrong and next(texts) == 1:
            wrong.write_text(right)
        return read_bytes(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", conversions)
    with sensors(tree, onewire=[wire(AIR, "air_c")]) as got:
        wait_for(got.readings, "readings")
    assert {reading.quality for reading in got.readings()} == {GOOD}
    assert got.readings()[0].value == 19.0


def test_a_kernel_without_w1_slave(tree: SensorTree) -> None:
    folder = tree.onewire(AIR, 0)
    (folder / "w1_slave").unlink()
    (folder / "temperature").write_text("23062\n")
    with sensors(tree, onewire=[wire(AIR, "air_c")]) as got:
        wait_for(got.readings, "readings")
        assert latest(got, "air_c") == (23.062, GOOD)


def test_a_sensor_can_be_read_now(tree: SensorTree) -> None:
    tree.iio(0, "bme280", {"in_temp_input": 21480})
    slow = {**chip("bme280", {"channel": "temp", "metric": "t"}), "interval_s": 3600.0}
    driver = Sysfs(context(GatewaySettings.model_validate({"sysfs": tree.root, "iio": [slow]})))
    with running(driver) as got:
        wait_for(lambda: len(got.readings("cabinet/t")) == 1, "the reading of the start")
        assert not driver.poll_now("another")
        assert driver.poll_now("cabinet")
        wait_for(lambda: len(got.readings("cabinet/t")) == 2, "the one that was asked for")


def test_a_sensor_that_goes_and_comes_back(tree: SensorTree) -> None:
    folder = tree.onewire(AIR, 21_000)
    tree.onewire(WATER, 9_000)
    with sensors(tree, onewire=[wire(AIR, "air_c"), wire(WATER, "water_c")]) as got:
        wait_for(lambda: got.readings("cabinet/air_c"), "readings")
        tree.remove(folder)
        wait_for(lambda: ("cabinet", "device_silent") in got.events(), "its loss is an event")
        # The first look that misses it may have been under way: "went away".
        wait_for(lambda: got.driver.trouble() == f"{AIR}: not on the 1-wire bus", "its absence is told")
        seen, air = len(got.readings("cabinet/water_c")), len(got.readings("cabinet/air_c"))
        wait_for(lambda: len(got.readings("cabinet/water_c")) > seen + 3, "the other one goes on")
        assert len(got.readings("cabinet/air_c")) == air, "no reading is made up"
        tree.onewire(AIR, 22_000)
        wait_for(lambda: latest(got, "air_c") == (22.0, GOOD), "it is back")
        assert got.driver.trouble() == ""
    assert got.events() == [("cabinet", "device_silent"), ("cabinet", "device_back")]


def test_a_read_that_hangs_holds_up_nobody_else(tree: SensorTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.3)
    slave = tree.onewire(AIR, 21_000) / "w1_slave"
    tree.hang(slave)
    tree.iio(0, "bme280", {"in_temp_input": 21480})
    with sensors(tree, onewire=[wire(AIR, "air_c")], iio=[chip("bme280", {"channel": "temp", "metric": "t"})]) as got:
        wait_for(lambda: f"{AIR}: the read takes" in got.driver.trouble(), "it is told")
        seen = len(got.readings("cabinet/t"))
        wait_for(lambda: len(got.readings("cabinet/t")) > seen + 3, "the other one goes on")
        assert got.readings("cabinet/air_c") == []
        (hung := slave.with_name("hung")).hardlink_to(slave)
        tree.onewire(AIR, 22_000)
        hung.open("w").close()  # lets the read go on, and it finds nothing
        wait_for(lambda: got.readings("cabinet/air_c"), "the sensor has its turn again")
