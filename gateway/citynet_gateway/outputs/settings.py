"""Settings of outputs: tables ``[[gateway.outputs]]``, told apart by `kind`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from citynet.ids import is_id
from citynet_gateway.drivers.modbus.settings import ModbusSettings

OUTPUTS_MAX = 64


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


Identifier = Annotated[str, AfterValidator(_identifier)]


class ModbusOutput(BaseModel, extra="forbid", frozen=True):
    """A coil or a holding register of a device on a bus of ``[[gateway.modbus]]``."""

    kind: Literal["modbus"]
    name: Identifier = Field(description="name of the output")
    bus: str = Field(description="name of the bus")
    unit: int = Field(ge=0, le=255, description="unit identifier (slave address)")
    table: Literal["coil", "holding"] = Field("coil", description="coil or holding")
    address: int = Field(ge=0, le=65_535, description="address on the wire, from 0")
    on: int = Field(1, ge=0, le=65_535, description="what a register is written for on")
    off: int = Field(0, ge=0, le=65_535, description="what a register is written for off")
    timeout_ms: int = Field(200, ge=20, le=10_000, description="how long a write may take, with its wait for the bus")

    @model_validator(mode="after")
    def _has_meaning(self) -> Self:
        if self.on == self.off:
            raise ValueError("on and off are the same")
        if self.table == "coil" and {self.on, self.off} != {0, 1}:
            raise ValueError("on and off of a coil are 0 and 1")
        return self


class FileOutput(BaseModel, extra="forbid", frozen=True):
    """A file that the kernel offers: a GPIO's ``value``, an LED's ``brightness``."""

    kind: Literal["file"]
    name: Identifier = Field(description="name of the output")
    path: Path = Field(description="the file, which must exist")
    on: str = Field("1", pattern=r"^[ -~]{1,32}$", description="what is written for on")
    off: str = Field("0", pattern=r"^[ -~]{1,32}$", description="what is written for off")

    @model_validator(mode="after")
    def _has_meaning(self) -> Self:
        if self.on == self.off:
            raise ValueError("on and off are the same")
        return self


class GpioOutput(BaseModel, extra="forbid", frozen=True):
    """A line of a GPIO chip; needs the package gpiod."""

    kind: Literal["gpio"]
    name: Identifier = Field(description="name of the output")
    chip: Path = Field(Path("/dev/gpiochip0"), description="the chip's device")
    line: int = Field(ge=0, le=4095, description="number of the line on the chip")
    active_low: bool = Field(False, description="the line is low for on")


OutputSettings = Annotated[ModbusOutput | FileOutput | GpioOutput, Field(discriminator="kind")]


def misfits(outputs: Sequence[OutputSettings], buses: Sequence[ModbusSettings]) -> list[str]:
    """What does not fit together: names that come twice, buses that are not there."""
    return list(_misfits(outputs, buses))


def _misfits(outputs: Sequence[OutputSettings], buses: Sequence[ModbusSettings]) -> Iterator[str]:
    by_name = {bus.name: bus for bus in buses}
    for what, names in (("modbus", [bus.name for bus in buses]), ("outputs", [item.name for item in outputs])):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{what}: the name {name} comes twice"
    for item in outputs:
        if isinstance(item, ModbusOutput):
            if item.bus not in by_name:
                yield f"outputs: {item.name}: no bus {item.bus[:64]!r} in modbus"
            elif by_name[item.bus].serial and not 1 <= item.unit <= 247:
                yield f"outputs: {item.name}: unit must be 1..247 on a serial line"
