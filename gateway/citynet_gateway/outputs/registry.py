"""Which outputs a gateway has: one line a kind. A kind's module is imported only where it is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from citynet.errors import ConfigError
from citynet_gateway.outputs.port import Output
from citynet_gateway.settings import GatewaySettings


def build(settings: GatewaySettings) -> dict[str, Output]:
    """The outputs that the settings ask for, by name. ConfigError if a name stands twice or an interlock's is missing."""
    found: dict[str, Output] = {}
    for builder in _BUILDERS:
        for output in builder(settings):
            if output.name in found:
                raise ConfigError([f"gateway: two outputs are called {output.name}"])
            found[output.name] = output
    for interlock in settings.interlocks:
        if interlock.output not in found:
            raise ConfigError([f"gateway.interlocks: {interlock.name}: no output is called {interlock.output}"])
    return found


def _files(settings: GatewaySettings) -> Iterator[Output]:
    if settings.file_outputs:
        from citynet_gateway.outputs.file import FileOutput  # noqa: PLC0415

        for item in settings.file_outputs:
            yield FileOutput(item)


_BUILDERS: tuple[Callable[[GatewaySettings], Iterator[Output]], ...] = (_files,)
