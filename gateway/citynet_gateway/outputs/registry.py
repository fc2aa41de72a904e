"""Builds the outputs that the settings ask for. A kind's module is imported only where it is configured."""

from __future__ import annotations

from collections.abc import Sequence

from citynet_gateway.drivers.port import Driver
from citynet_gateway.outputs.port import Output
from citynet_gateway.outputs.settings import OutputSettings
from citynet_gateway.settings import GatewaySettings


def build(settings: GatewaySettings, drivers: Sequence[Driver]) -> dict[str, Output]:
    """The outputs by name; nothing is switched by it.

    Args:
        drivers: among them those whose connection an output shares.
    """
    return {item.name: _build(item, drivers) for item in settings.outputs}


def _build(settings: OutputSettings, _drivers: Sequence[Driver]) -> Output:
    from citynet_gateway.outputs.file import FileSwitch  # noqa: PLC0415

    return FileSwitch(settings)
