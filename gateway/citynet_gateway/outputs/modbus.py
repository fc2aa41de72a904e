"""Output: a coil or a holding register on a bus that is polled as well; a write goes before the next poll."""

from __future__ import annotations

from citynet_gateway.drivers.modbus.bus import Bus
from citynet_gateway.drivers.modbus.errors import ModbusError
from citynet_gateway.outputs.port import OutputError
from citynet_gateway.outputs.settings import ModbusOutput


class ModbusSwitch:
    """`Output` by Modbus. The device repeats what it took, so a write that returns was taken."""

    def __init__(self, settings: ModbusOutput, bus: Bus) -> None:
        self.name = settings.name
        self._settings = settings
        self._bus = bus

    def write(self, on: bool) -> None:
        its = self._settings
        try:
            self._bus.write(its.unit, its.table, its.address, its.on if on else its.off, its.timeout_ms / 1000)
        except ModbusError as error:
            raise OutputError(f"output {self.name}: {error}") from None

    def read(self) -> bool | None:
        its = self._settings
        try:
            value = self._bus.read(its.unit, its.table, its.address, its.timeout_ms / 1000)
        except ModbusError as error:
            raise OutputError(f"output {self.name}: {error}") from None
        return {its.on: True, its.off: False}.get(value)

    def close(self) -> None:
        """The bus is the driver's."""
