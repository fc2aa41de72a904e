"""Builds the outputs that the settings ask for. A kind's module is imported only where it is configured."""

from __future__ import annotations

from collections.abc import Sequence

from citynet.errors import CitynetError
from citynet_gateway.drivers.port import Driver
from citynet_gateway.outputs.port import Output
from citynet_gateway.outputs.settings import GpioOutput, ModbusOutput, OutputSettings
from citynet_gateway.settings import GatewaySettings


def build(settings: GatewaySettings, drivers: Sequence[Driver]) -> dict[str, Output]:
    """The outputs by name; nothing is switched by it.

    Args:
        drivers: among them those whose connection an output shares.

    Raises:
        CitynetError: one of them cannot be used on this machine, and why.
    """
    return {item.name: _build(item, drivers) for item in settings.outputs}


def _build(settings: OutputSettings, drivers: Sequence[Driver]) -> Output:
    if isinstance(settings, ModbusOutput):
        from citynet_gateway.drivers.modbus.driver import Modbus  # noqa: PLC0415
        from citynet_gateway.outputs.modbus import ModbusSwitch  # noqa: PLC0415

        buses = [driver.bus for driver in drivers if isinstance(driver, Modbus)]
        return ModbusSwitch(settings, next(bus for bus in buses if bus.settings.name == settings.bus))
    if isinstance(settings, GpioOutput):
        try:
            from citynet_gateway.outputs.gpio import GpioSwitch  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise CitynetError(
                f"[[gateway.outputs]] {settings.name} needs the package {error.name}: install citynet[gateway,gpio]"
            ) from None
        return GpioSwitch(settings)
    from citynet_gateway.outputs.file import FileSwitch  # noqa: PLC0415

    return FileSwitch(settings)
