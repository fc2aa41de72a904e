"""Output: a line of a GPIO chip, by gpiod (version 2 of the kernel's interface)."""

from __future__ import annotations

from typing import Any

import gpiod
from gpiod.line import Direction, Value

from citynet_gateway.outputs.port import OutputError
from citynet_gateway.outputs.settings import GpioOutput

CONSUMER = "citynet"


class GpioSwitch:
    """`Output` by a GPIO line.

    The line is claimed at the first access and with the level that it has, so that a restart of the gateway switches
    nothing. While it is claimed no other program can drive it; when it is let go the kernel may reset it.
    """

    def __init__(self, settings: GpioOutput) -> None:
        self.name = settings.name
        self._settings = settings
        self._line: Any = None

    def write(self, on: bool) -> None:
        try:
            self._claimed().set_value(self._settings.line, Value.ACTIVE if on else Value.INACTIVE)
        except (OSError, ValueError) as error:
            raise self._failed(error) from None

    def read(self) -> bool | None:
        try:
            return bool(self._claimed().get_value(self._settings.line) == Value.ACTIVE)
        except (OSError, ValueError) as error:
            raise self._failed(error) from None

    def close(self) -> None:
        if self._line is not None:
            self._line.release()
            self._line = None

    def _claimed(self) -> Any:
        if self._line is None:
            its = self._settings
            as_it_is = gpiod.LineSettings(direction=Direction.AS_IS, active_low=its.active_low)
            line = gpiod.request_lines(str(its.chip), consumer=CONSUMER, config={its.line: as_it_is})
            level = line.get_value(its.line)
            line.reconfigure_lines(
                {
                    its.line: gpiod.LineSettings(
                        direction=Direction.OUTPUT, active_low=its.active_low, output_value=level
                    )
                }
            )
            self._line = line
        return self._line

    def _failed(self, error: Exception) -> OutputError:
        self.close()
        return OutputError(
            f"output {self.name}: {self._settings.chip} line {self._settings.line}: {getattr(error, 'strerror', None) or error}"
        )
