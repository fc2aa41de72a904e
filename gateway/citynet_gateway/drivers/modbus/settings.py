"""Settings of Modbus buses: tables ``[[gateway.modbus]]``. Every mistake of a register map is one line of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from citynet.ids import is_id

RegisterTable = Literal["holding", "input", "coil", "discrete"]
ValueType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bit"]
WORDS: Mapping[str, int] = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4, "bit": 1}
ADDRESSES = 65_536
REGISTERS_OF_A_DEVICE_MAX = 1_000
DEVICES_OF_A_BUS_MAX = 247
BUSES_MAX = 16

_BITS_ONLY = ("coil", "discrete")
_NUMBERS_ONLY = ("scale", "offset", "unit", "min", "max", "byte_order", "word_order", "invalid")


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


Identifier = Annotated[str, AfterValidator(_identifier)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class RegisterSettings(BaseModel, extra="forbid", frozen=True):
    """One value of a device: where it stands, how it is written, what it means."""

    metric: Identifier = Field(description="name of the reading")
    table: RegisterTable = Field("holding", description="holding, input, coil or discrete")
    address: int = Field(ge=0, lt=ADDRESSES, description="address on the wire, from 0 (manuals often count from 1)")
    type: ValueType | None = Field(None, description="u16 i16 u32 i32 u64 i64 f32 f64 bit; unset: u16, of a coil bit")
    bit: int | None = Field(None, ge=0, le=15, description="which bit of a register, 0 is the lowest")
    byte_order: Literal["big", "little"] = Field("big", description="order of the two bytes of a register")
    word_order: Literal["big", "little"] = Field("big", description="order of the registers of a value")
    scale: Finite = Field(1.0, description="the reading is raw * scale + offset")
    offset: Finite = Field(0.0, description="see scale")
    unit: str = Field("", pattern=r"^[A-Za-z0-9%\[\]/.*'_-]{0,24}$", description="UCUM code after scaling, for people")
    min: Finite | None = Field(None, description="a reading below is uncertain and out of range")
    max: Finite | None = Field(None, description="a reading above is uncertain and out of range")
    invalid: list[Annotated[int, Field(ge=0, lt=1 << 64)]] = Field(
        default_factory=list, max_length=16, description="raw bits by which the device says that it has no value"
    )
    interval_s: float | None = Field(None, ge=0.05, le=86_400, description="unset: that of the device")

    @model_validator(mode="after")
    def _has_meaning(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.table in _BITS_ONLY and self.kind != "bit":
            yield f"a {self.table} is a bit, not {self.kind}"
        if self.table in _BITS_ONLY and self.bit is not None:
            yield f"a {self.table} has no bit {self.bit}"
        if self.table not in _BITS_ONLY and (self.kind == "bit") != (self.bit is not None):
            yield 'type = "bit" and bit = 0..15 go together'
        if self.kind == "bit" and (given := self._beyond_a_bit()):
            yield f"a bit has no {', '.join(given)}"
        if self.address + self.width > ADDRESSES:
            yield f"{self.kind} takes {self.width} registers and ends behind {ADDRESSES - 1}"
        if self.scale == 0:
            yield "scale 0 makes every reading the same"
        if self.min is not None and self.max is not None and self.min >= self.max:
            yield "min must be below max"

    def _beyond_a_bit(self) -> list[str]:
        """Settings that say something which a bit does not have. By value, so that settings survive being written out."""
        fields = type(self).model_fields
        return [
            name for name in _NUMBERS_ONLY if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]

    @property
    def kind(self) -> ValueType:
        return self.type or ("bit" if self.table in _BITS_ONLY else "u16")

    @property
    def width(self) -> int:
        """Addresses that the value takes."""
        return WORDS[self.kind]


def _check_map(data: object, _handler: object) -> list[RegisterSettings]:
    """A register map; every value that is wrong, and every pair that collides, is a mistake of its own."""
    if not isinstance(data, list):
        raise PydanticCustomError("list_type", "must be a list of tables")
    found: list[tuple[int, RegisterSettings]] = []
    mistakes: list[InitErrorDetails] = []
    for number, item in enumerate(data[: REGISTERS_OF_A_DEVICE_MAX + 1]):
        try:
            found.append((number, RegisterSettings.model_validate(item)))
        except ValidationError as error:
            mistakes += [_mistake((number, *one["loc"]), one["type"], one["msg"]) for one in error.errors()]
    if len(data) > REGISTERS_OF_A_DEVICE_MAX:
        mistakes.append(_mistake((), "too_long", f"more than {REGISTERS_OF_A_DEVICE_MAX} values"))
    mistakes += [_mistake((number,), "value_error", text) for number, text in collisions(found)]
    if mistakes:
        raise ValidationError.from_exception_data("registers", mistakes)
    return [register for _, register in found]


def _mistake(where: tuple[int | str, ...], kind: Any, text: str) -> InitErrorDetails:
    return {"type": PydanticCustomError(kind, "{text}", {"text": text}), "loc": where, "input": None}


def collisions(registers: Sequence[tuple[int, RegisterSettings]]) -> Iterator[tuple[int, str]]:
    """Values of one device that share a register without being different bits of it, and metrics that come twice.

    Args:
        registers: with their positions in the map; what is yielded is a position and what is wrong there.
    """
    names: dict[str, int] = {}
    taken: dict[tuple[str, int], list[tuple[int, RegisterSettings]]] = {}
    for number, register in registers:
        first = names.setdefault(register.metric, number)
        if first != number:
            yield number, f"metric {register.metric} is already that of number {first}"
        places = [(register.table, register.address + k) for k in range(register.width)]
        rivals = {other: its for place in places for other, its in taken.get(place, []) if not _share(register, its)}
        for its in rivals.values():
            yield number, f"{register.metric} overlaps {its.metric} ({its.table} {_range(its)})"
        for place in places:
            taken.setdefault(place, []).append((number, register))


def _share(one: RegisterSettings, other: RegisterSettings) -> bool:
    """Whether two values may stand in the same register: as different bits of it."""
    return one.bit is not None and other.bit is not None and one.bit != other.bit


def _range(register: RegisterSettings) -> str:
    last = register.address + register.width - 1
    return str(register.address) if register.width == 1 else f"{register.address}-{last}"


RegisterMap = Annotated[list[RegisterSettings], WrapValidator(_check_map)]


class DeviceSettings(BaseModel, extra="forbid", frozen=True):
    """One device on a bus."""

    unit: int = Field(ge=0, le=255, description="unit identifier (slave address)")
    device: Identifier = Field(description="name under which its readings go")
    interval_s: float = Field(10.0, ge=0.05, le=86_400, description="time between two polls")
    registers: RegisterMap = Field(default_factory=list, description="its values")
    map: str = Field("", description="name of a register map of the bus, instead of registers")

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if bool(self.map) == bool(self.registers):
            raise ValueError("needs registers or the name of a map, one of both")
        return self


class ModbusSettings(BaseModel, extra="forbid", frozen=True):
    """A Modbus bus: a TCP server, or a serial line."""

    name: Identifier = Field(description="name of the bus")
    host: str = Field("", description="name or address of a Modbus TCP server or converter")
    port: int = Field(502, ge=1, le=65_535, description="its TCP port")
    rtu_over_tcp: bool = Field(False, description="the converter passes RTU frames on as they are")
    serial: str = Field("", description="serial device for Modbus RTU, such as /dev/ttyUSB0")
    baud: int = Field(9600, ge=300, le=4_000_000, description="speed of the serial line")
    parity: Literal["none", "even", "odd"] = Field("none", description="parity of the serial line")
    stop_bits: Literal[1, 2] = Field(1, description="stop bits of the serial line")
    timeout_ms: int = Field(500, ge=10, le=10_000, description="how long a device may take to answer")
    registers_max: int = Field(125, ge=4, le=125, description="registers of one request")
    bits_max: int = Field(2000, ge=1, le=2000, description="coils or discrete inputs of one request")
    gap_max: int = Field(8, ge=0, le=124, description="registers nobody asked for that a request may read with others")
    backoff_s_max: float = Field(
        60.0, ge=0.1, le=3600, description="longest pause before a silent device is asked again"
    )
    maps: dict[str, RegisterMap] = Field(default_factory=dict, description="register maps that several devices share")
    devices: list[DeviceSettings] = Field(
        default_factory=list, max_length=DEVICES_OF_A_BUS_MAX, description="devices on this bus"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := list(self._problems()):
            raise ValidationError.from_exception_data(
                "modbus", [_mistake(at, "value_error", text) for at, text in problems]
            )
        return self

    def _problems(self) -> Iterator[tuple[tuple[int | str, ...], str]]:
        if bool(self.host) == bool(self.serial):
            yield (), "needs host or serial, one of both"
        if self.rtu_over_tcp and self.serial:
            yield ("rtu_over_tcp",), "has no meaning on a serial line"
        names: dict[str, int] = {}
        for number, item in enumerate(self.devices):
            where = ("devices", number)
            if self.serial and not 1 <= item.unit <= 247:
                yield (*where, "unit"), "must be 1..247 on a serial line"
            if item.map and item.map not in self.maps:
                yield (*where, "map"), f"no map {item.map[:64]!r} on this bus"
            if names.setdefault(item.device, number) != number:
                yield (*where, "device"), f"{item.device} is already that of number {names[item.device]}"

    def registers_of(self, item: DeviceSettings) -> list[RegisterSettings]:
        """The register map of one of its devices."""
        return self.maps[item.map] if item.map else item.registers

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.serial or f"{self.host}:{self.port}"
