"""Settings of the simulated city: the table `[sim]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from citynet.runtime.settings import BrokerEndpoint, Table, table_config
from citynet_sim.city import CityParameters
from citynet_sim.incidents import Course
from citynet_sim.metrics import KINDS

Period = Annotated[float, Field(ge=0.1, le=86_400.0)]
Count = Annotated[int, Field(ge=0, le=9999)]


class CitySettings(BaseModel, extra="forbid", frozen=True):
    """How many devices of each kind the city has, and where it lies (WGS-84)."""

    gas_wells: Count = Field(default=160, description="number of gas wells")
    water_meters: Count = Field(default=80, description="number of water district meters")
    manholes: Count = Field(default=200, description="number of drainage manholes")
    pump_stations: Count = Field(default=20, description="number of drainage pump stations")
    lon_center_deg: float = Field(default=116.0, ge=-180.0, le=180.0, description="longitude of the city's centre")
    lat_center_deg: float = Field(default=30.5, ge=-80.0, le=80.0, description="latitude of the city's centre")


class SamplingSettings(BaseModel, extra="forbid", frozen=True):
    """Seconds between two messages of a device, by kind, to the millisecond."""

    gas_well_s: Period = Field(default=5.0, description="seconds between two messages of a gas well")
    water_meter_s: Period = Field(default=5.0, description="seconds between two messages of a district meter")
    manhole_s: Period = Field(default=5.0, description="seconds between two messages of a manhole")
    pump_station_s: Period = Field(default=5.0, description="seconds between two messages of a pump station")

    def period_ms(self) -> dict[str, int]:
        """Period in whole milliseconds by kind of device."""
        seconds = (self.gas_well_s, self.water_meter_s, self.manhole_s, self.pump_station_s)
        return {kind: round(period * 1000) for kind, period in zip(KINDS, seconds, strict=True)}


class CourseSettings(BaseModel, extra="forbid", frozen=True):
    """Course of an incident (s): start after the run's start, rise to the peak, hold, decay afterwards."""

    start_s: float = Field(default=10.0, ge=0.0, le=31_536_000.0, description="start after the run's start")
    rise_s: float = Field(default=5.0, ge=0.1, le=86_400.0, description="from the start to the peak")
    hold_s: float = Field(default=1800.0, ge=0.0, le=31_536_000.0, description="how long the peak lasts")
    decay_s: float = Field(default=600.0, ge=0.1, le=86_400.0, description="from the peak to nothing")

    def course(self) -> Course:
        return Course(self.start_s, self.rise_s, self.hold_s, self.decay_s)


def _local_broker() -> BrokerEndpoint:
    return BrokerEndpoint.model_validate({})


def _ponding_course() -> CourseSettings:
    return CourseSettings.model_validate({"start_s": 15.0})


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
    scenario: str = Field(default="demo", description="see `citynet sim list`")
    gateways: list[str] = Field(
        ["gw-01", "gw-02"], min_length=1, max_length=256, description="names; devices are shared equally"
    )
    speed: float = Field(default=1.0, gt=0.0, le=100_000.0, description="city seconds a second; 1 is real time")
    city: CitySettings = Field(default_factory=CitySettings)
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    leak: CourseSettings = Field(default_factory=CourseSettings, description="course of the gas leak")
    # A value, not a factory: only then does a file that sets one of its keys keep the others.
    ponding: CourseSettings = Field(_ponding_course(), description="course of the ponding")
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
        return CityParameters(**self.city.model_dump(), gateways=tuple(self.gateways))
