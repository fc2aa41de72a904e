"""The port of an output: something in the cabinet that can be switched."""

from __future__ import annotations

from typing import Protocol

from citynet.errors import CitynetError


class OutputError(CitynetError):
    """The output did not take the value, and why."""


class Output(Protocol):
    """One thing to switch. Called from one thread at a time."""

    name: str

    def write(self, on: bool) -> None:
        """Switch it, and return when the device has taken it; within 100 ms or its own timeout. Raises OutputError."""
        ...

    def read(self) -> bool | None:
        """What it is now as the device says, None if the device cannot tell. Raises OutputError."""
        ...

    def close(self) -> None:
        """Leave it as it is and let go."""
        ...
