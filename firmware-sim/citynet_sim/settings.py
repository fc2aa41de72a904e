"""Settings of the simulated city: the table `[sim]`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator

from citynet.runtime.settings import BrokerEndpoint, Table, table_config
from citynet_sim.city import DEVICES_PER_KIND_MAX, CityParameters
from citynet_sim.city_files import CityFiles
from citynet_sim.kinds import KINDS
from citynet_sim.weather import CLIMATES

Period = Annotated[float, Field(ge=0.1, le=86_400.0)]
Count = Annotated[int, Field(ge=0, le=DEVICES_PER_KIND_MAX)]


class CitySettings(BaseModel, extra="forbid", frozen=True):
    """What the city is generated from; `[sim.city.devices]` sets counts by kind where the population's are not wanted."""

    population: int = Field(default=1_000_000, ge=0, le=30_000_000, description="inhabitants; devices go with them")
    area_km2: float = Field(default=81.0, ge=1.0, le=10_000.0, description="area of the city, a square")
    climate: str = Field(default="humid-subtropical", description=f"one of {', '.join(CLIMATES)}")
    devices: dict[str, Count] = Field(default={}, description="number of devices by kind, such as gas-well = 6")
    lon_center_deg: float = Field(default=116.0, ge=-180.0, le=180.0, description="longitude of the city's centre")
    lat_center_deg: float = Field(default=30.5, ge=-80.0, le=80.0, description="latitude of the city's centre")

    files: CityFiles = Field(default_factory=CityFiles, description="files that the city is read from instead")

    @field_validator("devices")
    @classmethod
    def _kinds(cls, value: dict[str, int]) -> dict[str, int]:
        return _of_kinds(value)


class SamplingSettings(BaseModel, extra="forbid", frozen=True):
    """Seconds between two messages of a device, to the millisecond."""

    every_s: Period | None = Field(default=None, description="all kinds; unset: what is usual for each")
    kinds: dict[str, Period] = Field(default={}, description="by kind of device, such as gas-well = 5.0")

    @field_validator("kinds")
    @classmethod
    def _kinds(cls, value: dict[str, float]) -> dict[str, float]:
        return _of_kinds(value)

    def period_ms(self) -> dict[str, int]:
        """Period in whole milliseconds by kind of device."""
        usual = {name: self.every_s or kind.period_s for name, kind in KINDS.items()}
        return {name: round(1000 * self.kinds.get(name, period)) for name, period in usual.items()}


def _of_kinds(value: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(value) - set(KINDS)):
        raise ValueError(f"{unknown[0][:60]!r} is no kind of device (known: {', '.join(KINDS)})")
    return value


def _local_broker() -> BrokerEndpoint:
    return BrokerEndpoint.model_validate({})


class SimSettings(Table):
    """The simulated city."""

    model_config = table_config("sim")

    broker: BrokerEndpoint = Field(
        default_factory=_local_broker, description="the field broker that devices publish to"
    )
    field_prefix: str = Field(
        "field", pattern=r"^[^+#\s/][^+#\s]{0,127}$", description="devices publish to PREFIX/gateway/device"
    )
    seed: int = Field(default=1, ge=0, le=(1 << 63) - 1, description="same seed, same city, same readings")
    scenario: str = Field(default="demo", description="see `citynet sim list`; or the path of a .toml file")
    gateways: list[str] = Field(
        ["gw-01", "gw-02"], min_length=1, max_length=256, description="names; devices are shared equally"
    )
    speed: float = Field(default=1.0, gt=0.0, le=100_000.0, description="city seconds a second; 1 is real time")
    pack_max: int = Field(
        100,
        ge=1,
        le=1000,
        description="samples of a device in one message, at speeds above 1; in real time each is one",
    )
    city: CitySettings = Field(default_factory=CitySettings)
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    texture: bool = Field(default=True, description="sampling jitters and samples are missing, as in the field")
    in_flight_max: int = Field(default=32, ge=1, le=1000, description="messages of a gateway that await their PUBACK")
    buffer_messages_max: int = Field(
        240,
        ge=1,
        le=100_000,
        description="messages a device keeps while the broker is away; beyond, the oldest is lost",
    )
    ack_timeout_s: float = Field(default=15.0, ge=0.5, le=600.0, description="no PUBACK for so long: reconnect")
    drain_s_max: float = Field(30.0, ge=0.0, le=3600.0, description="wait for PUBACKs after --duration has passed")

    def parameters(self) -> CityParameters:
        """What the city is generated from."""
        return CityParameters(**self.city.model_dump(exclude={"files"}), gateways=tuple(self.gateways))


def asked(
    scenario: str | None, seed: int | None, gateways: str | None, inp: str | None, geojson: str | None
) -> dict[str, Any]:
    """Settings from options that most commands have; gateways are names separated by commas."""
    files = {key: path for key, path in (("inp", inp), ("geojson", geojson)) if path is not None}
    names = None if gateways is None else [name.strip() for name in gateways.split(",") if name.strip()]
    return {"scenario": scenario, "seed": seed, "gateways": names, "city": {"files": files} if files else None}
