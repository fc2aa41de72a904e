"""Which registers are read together, pure: neighbours of one table in one request, within the protocol's bounds.

The Modbus application protocol (V1.1b3, sections 6.1 to 6.4) allows 125 registers or 2,000 bits a request. Going from
the lowest address upwards and taking what still fits gives the smallest number of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from citynet_gateway.drivers.modbus.settings import RegisterSettings, RegisterTable


@dataclass(frozen=True, slots=True)
class Span:
    """One request: `count` addresses from `address` on; `items` are the values in it."""

    table: RegisterTable
    address: int
    count: int
    items: tuple[RegisterSettings, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Longest request by table, and the longest stretch that nobody asked for within one."""

    registers_max: int = 125
    bits_max: int = 2000
    gap_max: int = 8

    def longest(self, table: RegisterTable) -> int:
        return self.bits_max if table in ("coil", "discrete") else self.registers_max


def plan(registers: Sequence[RegisterSettings], bounds: Bounds) -> list[Span]:
    """Requests that read all of `registers`, each in exactly one of them; none begins or ends with what nobody asked for."""
    spans: list[Span] = []
    for table in _tables(registers):
        run: list[RegisterSettings] = []
        end = 0
        for register in sorted((item for item in registers if item.table == table), key=lambda item: item.address):
            reach = max(end, register.address + register.width)
            fits = run and register.address - end <= bounds.gap_max and reach - run[0].address <= bounds.longest(table)
            if run and not fits:
                spans.append(Span(table, run[0].address, end - run[0].address, tuple(run)))
                run, reach = [], register.address + register.width
            run.append(register)
            end = reach
        spans.append(Span(table, run[0].address, end - run[0].address, tuple(run)))
    return spans


def apart(span: Span) -> list[Span]:
    """The same values with a request of its own for each place: for devices that refuse a whole request for one address."""
    places: dict[tuple[int, int], list[RegisterSettings]] = {}
    for item in span.items:
        places.setdefault((item.address, item.width), []).append(item)
    return [Span(span.table, address, width, tuple(items)) for (address, width), items in places.items()]


def groups(registers: Sequence[RegisterSettings], interval_s: float) -> Mapping[float, list[RegisterSettings]]:
    """The values by their interval; `interval_s` is that of those without one of their own."""
    found: dict[float, list[RegisterSettings]] = {}
    for register in registers:
        found.setdefault(register.interval_s or interval_s, []).append(register)
    return found


def _tables(registers: Sequence[RegisterSettings]) -> list[RegisterTable]:
    return list(dict.fromkeys(item.table for item in registers))
