"""`Output` on a file that is there: one write switches it, as in sysfs."""

from __future__ import annotations

import os
import stat

from citynet_gateway.outputs.port import OutputError
from citynet_gateway.outputs.settings import FileOutput


class FileSwitch:
    """A file of the kernel, or any other that exists. It is opened for every write, because a device may come and go."""

    def __init__(self, settings: FileOutput) -> None:
        self._settings = settings
        self.name = settings.name

    def write(self, on: bool) -> None:
        text = self._settings.on if on else self._settings.off
        try:
            # Without O_CREAT: a file that nobody reads must not look like a success. Not blocking: a pipe may have no reader.
            descriptor = os.open(self._settings.path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"output {self.name}: {self._settings.path}: {error.strerror or error}") from None

    def read(self) -> bool | None:
        path = self._settings.path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return None
            text = path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise OutputError(f"output {self.name}: {path}: {error.strerror or error}") from None
        return {self._settings.on: True, self._settings.off: False}.get(text)

    def close(self) -> None:
        """Nothing is held open."""
