"""Reads sensors that Linux shows in files.

IIO (Documentation/ABI/testing/sysfs-bus-iio of the kernel): a channel is ``in_NAME_input``, already in its unit, or
``(in_NAME_raw + in_NAME_offset) * in_NAME_scale``; offset and scale may be shared by all channels of a type
(``in_voltage_scale`` for ``voltage0``). Units are the ABI's: milli°C, mV, mA, kPa, milli-percent of humidity, lux.

1-wire (Documentation/w1/slaves/w1_therm.rst): ``w1_slave`` has the nine bytes of the scratchpad with YES or NO for
their CRC, then again with ``t=`` in thousandths of a °C; ``temperature`` has only the latter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

from citynet.errors import CitynetError
from citynet.quality import BAD, GOOD, OUT_OF_RANGE, UNCERTAIN
from citynet_gateway.drivers.sysfs.settings import ChannelSettings, IioSettings, OneWireSettings

POWER_ON_MILLI_C = 85_000  # what a DS18B20 has before its first conversion
TRIES = 3
_FILE_BYTES_MAX = 4096
_SCRATCHPAD = re.compile(r"^((?:[0-9a-f]{2} ){9}): crc=[0-9a-f]{2} (YES|NO)", re.MULTILINE)
_MILLI_C = re.compile(r"\bt=(-?\d{1,7})\b")


class SensorAbsent(CitynetError):  # noqa: N818  (a state of the sensor)
    """The kernel shows no such sensor."""


class SensorFault(CitynetError):  # noqa: N818  (a state of the sensor)
    """The sensor is there, and gives no value."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its quality code; `fault` says in words why it is bad."""

    metric: str
    value: float
    quality: int
    fault: str = ""


def read_iio(root: Path, settings: IioSettings) -> list[Measured]:
    """Every channel of an IIO device; one that gives no value is bad. SensorAbsent."""
    folder = find_iio(root, settings.sensor)
    found = []
    for channel in settings.channels:
        try:
            value = _iio_value(folder, channel) * channel.scale + channel.offset
            found.append(_judged(channel.metric, value, channel.min, channel.max))
        except SensorFault as error:
            found.append(Measured(channel.metric, nan, BAD, str(error)))
    return found


def find_iio(root: Path, sensor: str) -> Path:
    """The folder of an IIO device by its folder's name, or by what is in its file ``name`` or ``label``. SensorAbsent."""
    folder = root / "bus/iio/devices"
    devices = sorted(folder.glob("iio:device*"))
    if folder / sensor in devices:
        return folder / sensor
    named = [item for item in devices if sensor in (_text_or_empty(item / "name"), _text_or_empty(item / "label"))]
    if not named:
        raise SensorAbsent(f"{sensor}: not among the IIO devices in {folder}")
    if len(named) > 1:
        names = ", ".join(item.name for item in named)
        raise SensorAbsent(f"{sensor}: {len(named)} IIO devices have this name ({names}); name one of those")
    return named[0]


def _iio_value(folder: Path, channel: ChannelSettings) -> float:
    """In the kernel's unit. SensorFault."""
    name = channel.channel
    ready = folder / f"in_{name}_input"
    if ready.exists():
        return _number(ready)
    raw = _number(folder / f"in_{name}_raw")
    return (raw + _shared(folder, name, "offset", 0.0)) * _shared(folder, name, "scale", 1.0)


def _shared(folder: Path, name: str, what: str, otherwise: float) -> float:
    """``in_voltage0_scale``, else ``in_voltage_scale``, else a constant."""
    for place in (folder / f"in_{name}_{what}", folder / f"in_{name.rstrip('0123456789')}_{what}"):
        if place.exists():
            return _number(place)
    return otherwise


def read_onewire(root: Path, settings: OneWireSettings) -> Measured:
    """The temperature in °C; a wrong CRC is tried again, then bad. SensorAbsent."""
    folder = root / "bus/w1/devices" / settings.sensor
    if not folder.is_dir():
        raise SensorAbsent(f"{settings.sensor}: not on the 1-wire bus")
    fault = ""
    for _ in range(TRIES):
        try:
            milli_c = _milli_c(folder)
        except SensorFault as error:
            if not folder.is_dir():
                raise SensorAbsent(f"{settings.sensor}: went away") from None
            fault = str(error)
            continue
        if milli_c == POWER_ON_MILLI_C:
            return Measured(settings.metric, 85.0, UNCERTAIN)
        return _judged(settings.metric, milli_c / 1000, settings.min, settings.max)
    return Measured(settings.metric, nan, BAD, f"{settings.sensor}: {fault}")


def _milli_c(folder: Path) -> int:
    """Thousandths of a °C. SensorFault."""
    if not (folder / "w1_slave").exists():
        return int(_number(folder / "temperature"))
    text = _text(folder / "w1_slave")
    checked, measured = _SCRATCHPAD.search(text), _MILLI_C.search(text)
    if checked is None:
        raise SensorFault(f"w1_slave says {text[:60]!r}")
    if checked[2] != "YES":
        raise SensorFault("wrong CRC")
    if not checked[1].replace("0", "").strip():
        raise SensorFault("all bytes are zero: short circuit")  # their CRC is zero as well, so it says YES
    if measured is None:
        raise SensorFault("w1_slave has no t=")
    return int(measured[1])


def _judged(metric: str, value: float, low: float | None, high: float | None) -> Measured:
    if not isfinite(value):
        return Measured(metric, nan, BAD, f"{metric}: not a finite number")
    outside = (low is not None and value < low) or (high is not None and value > high)
    return Measured(metric, value, UNCERTAIN | OUT_OF_RANGE if outside else GOOD)


def _number(path: Path) -> float:
    text = _text(path)
    try:
        return float(text)
    except ValueError:
        raise SensorFault(f"{path.name} says {text[:40]!r}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError as error:
        raise SensorFault(f"{path.name}: {error.strerror or error}") from None


def _text_or_empty(path: Path) -> str:
    try:
        return _text(path)
    except SensorFault:
        return ""
