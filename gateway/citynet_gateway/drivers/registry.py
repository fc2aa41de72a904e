"""Which drivers a gateway has: one line a driver. A driver's module is imported only where it is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from citynet.errors import CitynetError
from citynet_gateway.drivers.port import Context, Driver


def build(context: Context) -> list[Driver]:
    """The drivers that the settings ask for. CitynetError if one of them cannot be used on this machine."""
    return [driver for builder in _BUILDERS for driver in builder(context)]


def _local_mqtt(context: Context) -> Iterator[Driver]:
    from citynet_gateway.drivers.local_mqtt import LocalMqtt  # noqa: PLC0415

    yield LocalMqtt(context)


def _hj212(context: Context) -> Iterator[Driver]:
    if context.settings.hj212.stations:
        from citynet_gateway.drivers.hj212.driver import Hj212  # noqa: PLC0415

        yield Hj212(context, context.settings.hj212)


def _push(context: Context) -> Iterator[Driver]:
    if context.settings.push.port:
        from citynet_gateway.drivers.push import HttpPush  # noqa: PLC0415

        yield HttpPush(context, context.settings.push)


def _modbus(context: Context) -> Iterator[Driver]:
    if not context.settings.modbus:
        return
    try:
        from citynet_gateway.drivers.modbus.driver import Modbus  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CitynetError(
            f"[[gateway.modbus]] needs the package {error.name}: install citynet[gateway,modbus]"
        ) from None
    for bus in context.settings.modbus:
        yield Modbus(bus, context)


def _sysfs(context: Context) -> Iterator[Driver]:
    if context.settings.iio or context.settings.onewire:
        from citynet_gateway.drivers.sysfs.driver import Sysfs  # noqa: PLC0415

        yield Sysfs(context)


_BUILDERS: tuple[Callable[[Context], Iterator[Driver]], ...] = (_local_mqtt, _hj212, _push, _modbus, _sysfs)
