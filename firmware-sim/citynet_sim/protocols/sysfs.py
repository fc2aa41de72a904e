"""A directory tree that looks like the kernel's sensors: IIO devices and 1-wire thermometers, with their faults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class SensorTree:
    """Writes below `root` what a kernel shows below ``/sys``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bus/iio/devices").mkdir(parents=True, exist_ok=True)
        (root / "bus/w1/devices").mkdir(parents=True, exist_ok=True)

    def iio(self, number: int, name: str, files: Mapping[str, object]) -> Path:
        """An IIO device; `files` by name, such as ``in_temp_raw``. Existing files are replaced whole."""
        folder = self.root / f"bus/iio/devices/iio:device{number}"
        folder.mkdir(exist_ok=True)
        for key, value in {"name": name, **files}.items():
            _replace(folder / key, f"{value}\n")
        return folder

    def onewire(self, address: str, milli_c: int, *, crc_right: bool = True) -> Path:
        """A thermometer that was just read. Milli-degrees as the kernel prints them."""
        scratchpad = bytes(
            [*(round(milli_c * 16 / 1000) & 0xFFFF).to_bytes(2, "little"), 0x4B, 0x46, 0x7F, 0xFF, 0x0C, 0x10]
        )
        return self._onewire(address, scratchpad, milli_c, crc_right=crc_right)

    def short_circuit(self, address: str) -> Path:
        """A thermometer whose data line is short-circuited: all zero, and so is the CRC."""
        return self._onewire(address, bytes(8), 0, crc_right=True)

    def _onewire(self, address: str, scratchpad: bytes, milli_c: int, *, crc_right: bool) -> Path:
        folder = self.root / "bus/w1/devices" / address
        folder.mkdir(exist_ok=True)
        crc = crc8(scratchpad) ^ (0 if crc_right else 0x55)
        shown = " ".join(f"{byte:02x}" for byte in (*scratchpad, crc))
        verdict = "YES" if crc_right else "NO"
        _replace(folder / "w1_slave", f"{shown} : crc={crc:02x} {verdict}\n{shown} t={milli_c}\n")
        return folder

    def hang(self, path: Path) -> None:
        """Reading this file does not return, until somebody writes to the pipe that replaces it."""
        path.unlink()
        os.mkfifo(path)

    def remove(self, folder: Path) -> None:
        """The sensor is pulled out."""
        shutil.rmtree(folder)


def crc8(data: bytes) -> int:
    """CRC of 1-wire (x^8 + x^5 + x^4 + 1, reflected; Maxim application note 27)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8C if crc & 1 else crc >> 1
    return crc


def _replace(path: Path, text: str) -> None:
    """At once, as a reader of the kernel's files never sees half of one."""
    aside = path.with_name(path.name + ".new")
    aside.write_text(text)
    aside.rename(path)
