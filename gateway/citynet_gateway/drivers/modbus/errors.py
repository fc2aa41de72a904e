"""What can go wrong between us and a device, in words for a person. `outcome` is the label of the metric."""

from __future__ import annotations

from citynet.errors import CitynetError

# Modbus application protocol V1.1b3, section 7.
MEANINGS = {
    1: "function not supported",
    2: "no such address",
    3: "request not allowed",
    4: "device failure",
    5: "still working on an earlier request",
    6: "busy",
    8: "memory parity error",
    10: "the converter has no path to it",
    11: "it does not answer the converter",
}
_WRONG_REQUEST = frozenset({1, 2, 3})
_NOT_REACHED = frozenset({5, 6, 10, 11})


class ModbusError(CitynetError):
    """A transaction that gave no value."""

    outcome = "error"


class LinkLost(ModbusError):  # noqa: N818  (what happened, not what failed)
    """The bus itself cannot be used: no connection, no serial port."""

    outcome = "lost"


class Silence(ModbusError):  # noqa: N818  (what happened, not what failed)
    """The device said nothing in time."""

    outcome = "silence"


class Garbage(ModbusError):  # noqa: N818  (what happened, not what failed)
    """Bytes came that are no answer: a wrong checksum, another function, another length."""

    outcome = "garbage"


class Cut(ModbusError):  # noqa: N818  (what happened, not what failed)
    """We did not wait for the answer."""

    outcome = "cut"


class Refused(ModbusError):  # noqa: N818  (what happened, not what failed)
    """The device answered with an exception."""

    outcome = "refused"

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exception {code}: {MEANINGS.get(code, 'unknown')}")

    @property
    def wrong_request(self) -> bool:
        """The device does not have what was asked for; a part of it may still be there."""
        return self.code in _WRONG_REQUEST

    @property
    def not_reached(self) -> bool:
        """The device itself did not answer for its values: as good as silence."""
        return self.code in _NOT_REACHED
