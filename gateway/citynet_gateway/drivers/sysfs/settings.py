"""Settings of sensors that Linux shows in files: tables ``[[gateway.iio]]`` and ``[[gateway.onewire]]``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from citynet.ids import is_id

SENSORS_MAX = 64
CHANNELS_MAX = 64


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


Identifier = Annotated[str, AfterValidator(_identifier)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Interval = Annotated[float, Field(ge=0.1, le=86_400)]


class ChannelSettings(BaseModel, extra="forbid", frozen=True):
    """One channel of an IIO device. The reading is the kernel's value (in its unit) * scale + offset."""

    channel: str = Field(pattern=r"^[a-z0-9_]{1,48}$", description="as in the file in_CHANNEL_raw, such as temp")
    metric: Identifier = Field(description="name of the reading")
    scale: Finite = Field(1.0, description="from the kernel's unit (milli°C, mV, kPa …) to that of the reading")
    offset: Finite = Field(0.0, description="added after scale")
    min: Finite | None = Field(None, description="a reading below is uncertain and out of range")
    max: Finite | None = Field(None, description="a reading above is uncertain and out of range")


class IioSettings(BaseModel, extra="forbid", frozen=True):
    """A device of the kernel's Industrial I/O."""

    sensor: str = Field(
        pattern=r"^[A-Za-z0-9:._@,-]{1,64}$", description="what its file name (or label) says, or iio:deviceN"
    )
    device: Identifier = Field(description="name under which its readings go")
    interval_s: Interval = Field(10.0, description="time between two reads")
    channels: list[ChannelSettings] = Field(min_length=1, max_length=CHANNELS_MAX, description="its values")

    @model_validator(mode="after")
    def _metrics_differ(self) -> Self:
        names = [item.metric for item in self.channels]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"metrics come twice: {', '.join(repeated)}")
        return self


class OneWireSettings(BaseModel, extra="forbid", frozen=True):
    """A 1-wire thermometer (DS18B20 and its family)."""

    sensor: str = Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{12}$", description="its address, such as 28-000005e2fdc3")
    device: Identifier = Field(description="name under which its readings go")
    metric: Identifier = Field(description="name of the reading, °C")
    interval_s: Interval = Field(10.0, description="time between two reads; a read takes 0.75 s")
    min: Finite | None = Field(None, description="a reading below is uncertain and out of range")
    max: Finite | None = Field(None, description="a reading above is uncertain and out of range")
