"""Output: a file of the kernel, such as ``/sys/class/leds/relay/brightness``; what was written is read back."""

from __future__ import annotations

import os

from citynet_gateway.outputs.port import OutputError
from citynet_gateway.outputs.settings import FileOutput

_BYTES_MAX = 256


class FileSwitch:
    """`Output` by a file. The file is opened for every access, because a device may go and come back."""

    def __init__(self, settings: FileOutput) -> None:
        self.name = settings.name
        self._settings = settings

    def write(self, on: bool) -> None:
        wanted = self._settings.on if on else self._settings.off
        try:
            file = os.open(self._settings.path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(file, wanted.encode())
            finally:
                os.close(file)
            if (found := self._text()) not in (wanted, None):
                raise OutputError(f"output {self.name}: {self._settings.path} was given {wanted!r} and says {found!r}")
        except OSError as error:
            raise self._failed(error) from None

    def read(self) -> bool | None:
        try:
            text = self._text()
        except OSError as error:
            raise self._failed(error) from None
        return {self._settings.on: True, self._settings.off: False}.get(text or "")

    def close(self) -> None:
        """Nothing is held open."""

    def _text(self) -> str | None:
        """What it says; None if it may only be written."""
        try:
            file = os.open(self._settings.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            return None
        try:
            return os.read(file, _BYTES_MAX).decode("utf-8", "replace").strip()
        finally:
            os.close(file)

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"output {self.name}: {self._settings.path}: {error.strerror or error}")
