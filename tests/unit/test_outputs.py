"""Outputs other than Modbus: files of the kernel, GPIO lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from citynet.errors import CitynetError
from citynet_gateway.drivers import registry as drivers
from citynet_gateway.outputs import registry
from citynet_gateway.outputs.port import Output, OutputError
from citynet_gateway.settings import GatewaySettings
from tests.fieldbus import context


def build(**values: Any) -> Output:
    settings = GatewaySettings.model_validate({"outputs": [{"name": "fan", **values}]})
    return registry.build(settings, [])["fan"]


def test_a_file_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "brightness"
    path.write_text("0\n")
    fan = build(kind="file", path=path, on="255")
    assert fan.read() is False
    for on in (True, False, True):
        fan.write(on)
        assert path.read_text() == ("255" if on else "0")
        assert fan.read() is on
    path.write_text("17\n")
    assert fan.read() is None
    fan.close()
    assert path.read_text() == "17\n", "closing leaves it as it is"


def test_a_file_that_does_not_take_the_value(tmp_path: Path) -> None:
    fan = build(kind="file", path=tmp_path / "absent")
    for access in (lambda: fan.write(True), fan.read):
        with pytest.raises(OutputError, match=r"output fan: .*absent: No such file"):
            access()
    assert not (tmp_path / "absent").exists(), "it is never created"
    with pytest.raises(OutputError, match="was given '1' and says ''"):
        build(kind="file", path="/dev/null").write(True)


def test_a_gpio_chip_that_is_not_there_is_told_at_the_first_use(tmp_path: Path) -> None:
    pytest.importorskip("gpiod")
    for chip in (tmp_path / "gpiochip9", Path("/dev/null")):
        fan = build(kind="gpio", chip=chip, line=17)
        with pytest.raises(OutputError, match=f"output fan: {chip} line 17: "):
            fan.write(True)
        with pytest.raises(OutputError, match=f"output fan: {chip} line 17: "):
            fan.read()
        fan.close()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpiod", "citynet_gateway.outputs.gpio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CitynetError, match=r"citynet\[gateway,gpio\]|gpiod"):
        build(kind="gpio", line=17)
    bus = {"name": "b", "host": "h"}
    settings = GatewaySettings.model_validate({"modbus": [bus]})
    for name in [item for item in sys.modules if item.startswith("citynet_gateway.drivers.modbus.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(CitynetError) as caught:
        drivers.build(context(settings))
    assert str(caught.value) == "[[gateway.modbus]] needs the package serial: install citynet[gateway,modbus]"
