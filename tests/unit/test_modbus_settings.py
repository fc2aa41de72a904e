"""A wrong register map is refused at the start: everything at once, one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from citynet.errors import ConfigError
from citynet.runtime.settings import load
from citynet_gateway.settings import GatewaySettings

BUS = """
[[gateway.modbus]]
name = "bus"
host = "10.0.0.5"
"""
DEVICE = """
[[gateway.modbus.devices]]
unit = 1
device = "pump-1"
registers = [
"""


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "citynet.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(GatewaySettings, path)
    return [line.removeprefix(f"{path}: ") for line in caught.value.problems]


def of_a_map(folder: Path, *registers: str) -> list[str]:
    text = BUS + DEVICE + ",\n".join(registers) + "\n]\n"
    return [line.removeprefix("gateway.modbus.0.devices.0.registers.") for line in problems(folder, text)]


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    lines = of_a_map(
        tmp_path,
        '{ metric = "a", address = 10, type = "f32" }',
        '{ metric = "b", address = 11 }',
        '{ metric = "two words", address = 20 }',
        '{ metric = "c", address = 65534, type = "u64" }',
        '{ metric = "d", address = 30, colour = "red" }',
        '{ metric = "e", address = 31, typ = "u16", scale = 0 }',
        '{ metric = "a", address = 40 }',
        '{ metric = "f", address = 50, type = "bit", bit = 3, unit = "m", scale = 2.0 }',
        '{ metric = "g", table = "coil", address = 51, type = "u16" }',
        '{ metric = "h", address = 52, type = "bit" }',
        '{ metric = "i", address = 53, bit = 3 }',
        '{ metric = "j", address = 54, type = "u24" }',
        '{ metric = "k", address = 55, min = 5, max = 4 }',
        '{ metric = "l", address = 70000 }',
        '{ metric = "m", address = 56, unit = "two words" }',
        '{ metric = "n", address = 57, scale = nan }',
        '{ metric = "o" }',
    )
    for expected in (
        "1: b overlaps a (holding 10-11)",
        "2.metric: Value error, must be 1..64",
        "3: Value error, u64 takes 4 registers and ends behind 65535",
        "4.colour: Extra inputs are not permitted",
        "5.typ: Extra inputs are not permitted",
        "6: metric a is already that of number 0",
        "7: Value error, a bit has no scale, unit",
        "8: Value error, a coil is a bit, not u16",
        '9: Value error, type = "bit" and bit = 0..15 go together',
        '10: Value error, type = "bit" and bit = 0..15 go together',
        "11.type: Input should be 'u16'",
        "12: Value error, min must be below max",
        "13.address: Input should be less than 65536",
        "14.unit: String should match pattern",
        "15.scale: Input should be a finite number",
        "16.address: Field required",
    ):
        assert sum(line.startswith(expected) for line in lines) == 1, (expected, lines)
    assert len(lines) == 16
    assert not any("\n" in line for line in lines)


def test_bits_of_one_register_do_not_collide(tmp_path: Path) -> None:
    path = tmp_path / "citynet.toml"
    bit = '{{ metric = "b{0}", address = 5, type = "bit", bit = {0} }}'
    path.write_text(BUS + DEVICE + ",\n".join(bit.format(k) for k in range(16)) + "]\n")
    assert len(load(GatewaySettings, path).modbus[0].devices[0].registers) == 16
    lines = of_a_map(tmp_path, bit.format(3), '{ metric = "again", address = 5, type = "bit", bit = 3 }')
    assert [line.partition(" (got")[0] for line in lines] == ["1: again overlaps b3 (holding 5)"]
    (line,) = of_a_map(tmp_path, bit.format(3), '{ metric = "whole", address = 5 }')
    assert "overlaps b3" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[gateway.modbus]]\nname = "b"\n', "gateway.modbus.0: needs host or serial, one of both"),
        ('[[gateway.modbus]]\nname = "b"\nhost = "h"\nserial = "/dev/x"\n', "gateway.modbus.0: needs host or serial"),
        (BUS + 'baud = "fast"\n', "gateway.modbus.0.baud: "),
        (BUS + 'colour = "red"\n', "gateway.modbus.0.colour: Extra inputs"),
        (BUS + BUS, "modbus: the name bus comes twice"),
        (BUS + "registers_max = 126\n", "gateway.modbus.0.registers_max: "),
        (
            BUS + "[[gateway.modbus.devices]]\nunit = 1\ndevice = 'd'\nmap = 'm'\n",
            "devices.0.map: no map 'm' on this bus",
        ),
        (BUS + "[[gateway.modbus.devices]]\nunit = 1\ndevice = 'd'\n", "needs registers or the name of a map"),
        (BUS + "[[gateway.modbus.maps.m]]\nmetric = 'x'\naddress = -1\n", "gateway.modbus.0.maps.m.0.address: "),
        (
            "[[gateway.modbus]]\nname = 'b'\nserial = '/dev/x'\n"
            "[[gateway.modbus.devices]]\nunit = 0\ndevice = 'd'\nregisters = [{ metric = 'x', address = 1 }]\n",
            "gateway.modbus.0.devices.0.unit: must be 1..247 on a serial line",
        ),
        (
            "[[gateway.outputs]]\nkind = 'modbus'\nname = 'o'\nbus = 'b'\nunit = 1\naddress = 1\n",
            "o: no bus 'b' in modbus",
        ),
        ("[[gateway.outputs]]\nkind = 'steam'\nname = 'o'\n", "gateway.outputs.0: Input tag 'steam'"),
        ("[[gateway.outputs]]\nkind = 'file'\nname = 'o'\npath = 'x'\non = '0'\n", "on and off are the same"),
        (
            BUS + "[[gateway.outputs]]\nkind = 'modbus'\nname = 'o'\nbus = 'bus'\nunit = 1\naddress = 1\non = 2\n",
            "on and off of a coil are 0 and 1",
        ),
        ("[[gateway.onewire]]\nsensor = '28-xyz'\ndevice = 'd'\nmetric = 'm'\n", "gateway.onewire.0.sensor: "),
        ("[[gateway.iio]]\nsensor = 'bme280'\ndevice = 'd'\nchannels = []\n", "gateway.iio.0.channels: "),
        (
            "[[gateway.iio]]\nsensor = 'x'\ndevice = 'd'\n"
            "channels = [{ channel = 'temp', metric = 't' }, { channel = 'temp2', metric = 't' }]\n",
            "metrics come twice: t",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = problems(tmp_path, text)
    assert expected in line, line


def test_devices_share_a_map_and_settings_survive_being_written_out(tmp_path: Path) -> None:
    path = tmp_path / "citynet.toml"
    path.write_text(
        BUS
        + "[[gateway.modbus.maps.meter]]\nmetric = 'on'\ntable = 'coil'\naddress = 0\n"
        + "[[gateway.modbus.maps.meter]]\nmetric = 'power_kw'\naddress = 0\ntype = 'f32'\n"
        + "".join(f"[[gateway.modbus.devices]]\nunit = {k}\ndevice = 'meter-{k}'\nmap = 'meter'\n" for k in (1, 2))
    )
    settings = load(GatewaySettings, path)
    bus = settings.modbus[0]
    assert [[item.metric for item in bus.registers_of(device)] for device in bus.devices] == [["on", "power_kw"]] * 2
    assert GatewaySettings.model_validate(settings.model_dump(mode="json")) == settings
