"""Settings of the HJ 212 driver: table ``[gateway.hj212]``. It runs where at least one station is named."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, Field, model_validator

from citynet.ids import is_id


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError in 3.11
        raise ValueError("no such time zone on this machine, such as Asia/Shanghai") from None
    except KeyError:
        raise ValueError("no such time zone on this machine, such as Asia/Shanghai") from None
    return text


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an address of this machine, 0.0.0.0 for all") from None
    return text


ZoneName = Annotated[str, AfterValidator(_zone)]


class Hj212Station(BaseModel, extra="forbid", frozen=True):
    """A station that may speak to us."""

    mn: str = Field(pattern=r"^[0-9A-Za-z]{1,32}$", description="the station's number MN")
    device: Annotated[str, AfterValidator(_identifier)] = Field(description="what it is called here")
    password: str | None = Field(None, max_length=32, description="its PW; unset: any")
    checksum: Literal["hj212", "modbus-crc"] = Field(
        "hj212", description="the standard's checksum, or plain CRC-16/Modbus as some loggers send it"
    )
    zone: ZoneName | None = Field(None, description="its time zone, where it differs from the driver's")


class Hj212Factor(BaseModel, extra="forbid", frozen=True):
    """A factor that is called otherwise, or comes in another unit, than the table in docs/drivers.md says."""

    code: str = Field(pattern=r"^[0-9A-Za-z]{1,16}$", description="the factor's code")
    metric: Annotated[str, AfterValidator(_identifier)] = Field(
        max_length=32, description="what it is called here, without its unit"
    )
    unit: str = Field("", pattern=r"^[A-Za-z0-9_]{0,12}$", description="unit, the end of the metric's name")
    total_unit: str = Field("", pattern=r"^[A-Za-z0-9_]{0,12}$", description="unit of its sum over a period (Cou)")
    scale: float = Field(1.0, allow_inf_nan=False, description="its values are multiplied by this")


class Hj212Settings(BaseModel, extra="forbid", frozen=True):
    """Environmental monitoring stations, HJ 212-2017 over TCP; off without stations."""

    host: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1", description="address to listen on; 0.0.0.0 lets stations in from everywhere"
    )
    port: int = Field(9212, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one (see the log)")
    zone: ZoneName = Field("Asia/Shanghai", description="time zone of DataTime")
    stations: list[Hj212Station] = Field([], max_length=256, description="who may speak; others are not answered")
    factors: list[Hj212Factor] = Field([], max_length=1_000, description="factors beside and over the standard's")
    set_clocks: bool = Field(True, description="a station that asks for the time (CN 1013) gets ours")
    connections_max: int = Field(64, ge=1, le=1_024, description="connections at a time")
    idle_s: float = Field(
        3_900.0, ge=1, le=86_400, description="a connection without a whole frame for this long is closed"
    )
    frame_s: float = Field(60.0, ge=1, le=3_600, description="time for a frame that was begun to become whole")
    data_bytes_max: int = Field(
        4_096, ge=1_024, le=9_999, description="length of a data segment; the standard allows 1024"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for what, given in (
            ("mn", [station.mn for station in self.stations]),
            ("device", [station.device for station in self.stations]),
            ("code", [factor.code for factor in self.factors]),
        ):
            if twice := sorted({item for item in given if given.count(item) > 1}):
                raise ValueError(f"{what} {twice[0]} is there twice")
        return self
