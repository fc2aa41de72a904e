"""The gateway's settings that fit the devices: what a developer pastes into ``citynet.toml``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from citynet_sim.firmware.fleet import Member
from citynet_sim.firmware.identity import factor, onewire_address, station_number
from citynet_sim.firmware.polled import scale, thermometer

POLL_S = 10.0


def gateway_tables(
    members: Sequence[Member], *, port: int, serial: Path, hj212_port: int, poll_s: float = POLL_S
) -> str:
    """TOML for behind ``[gateway]``; empty where all speak MQTT."""
    by = {protocol: [m for m in members if m.protocol == protocol] for protocol in {m.protocol for m in members}}
    lines: list[str] = []
    for protocol, where in (
        ("modbus-tcp", f'host = "127.0.0.1"\nport = {port}'),
        ("modbus-rtu", f"serial = {_text(str(serial))}"),
    ):
        if protocol in by:
            lines += ["[[gateway.modbus]]", f'name = "sim-{protocol[-3:]}"', where, ""]
            for member in by[protocol]:
                lines += _unit(member, poll_s)
    if "hj212" in by:
        lines += _stations(by["hj212"], hj212_port)
    for member in by.get("iio", []):
        channels = [f"  {{ channel = {_text(m.name)}, metric = {_text(m.name)} }}," for m in member.device.metrics]
        lines += ["[[gateway.iio]]", f"sensor = {_text(member.device.name)}", *_named(member, poll_s)]
        lines += ["channels = [", *channels, "]", ""]
    for member in by.get("onewire", []):
        lines += ["[[gateway.onewire]]", f"sensor = {_text(onewire_address(member.device))}", *_named(member, poll_s)]
        lines += [f"metric = {_text(thermometer(member.device))}", ""]
    return "\n".join(lines)


def _unit(member: Member, poll_s: float) -> list[str]:
    registers = [
        f'  {{ metric = {_text(metric.name)}, table = "input", address = {2 * number}, type = "i32", '
        f"scale = {scale(metric)!r}, unit = {_text(metric.unit)} }},"
        for number, metric in enumerate(member.device.metrics)
    ]
    head = ["[[gateway.modbus.devices]]", f"unit = {member.unit}", *_named(member, poll_s)]
    return [*head, "registers = [", *registers, "]", ""]


def _stations(members: Sequence[Member], port: int) -> list[str]:
    stations = [
        f'  {{ mn = {_text(station_number(m.device))}, device = {_text(m.device.name)}, password = "123456" }},'
        for m in members
    ]
    names: dict[str, str] = {}
    for member in members:
        names |= {factor(metric.name): metric.name for metric in member.device.metrics}
    factors = []
    for code, name in names.items():
        metric, _, unit = name.partition("_")
        factors.append(f"  {{ code = {_text(code)}, metric = {_text(metric)}, unit = {_text(unit)} }},")
    return ["[gateway.hj212]", f"port = {port}", "stations = [", *stations, "]", "factors = [", *factors, "]", ""]


def _named(member: Member, poll_s: float) -> list[str]:
    return [f"device = {_text(member.device.name)}", f"interval_s = {poll_s:g}"]


def _text(text: str) -> str:
    return json.dumps(text)
