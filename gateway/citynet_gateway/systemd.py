"""Telling systemd how we are (sd_notify(3)): a datagram a message to the socket that it names. Elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_BEATS_A_WATCHDOG = 3  # so that one late turn is not taken for a hang


class Notifier:
    """`alive` is called from the turn of the service: where that hangs, systemd ends and restarts us."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._beat_s = float(environment.get("WATCHDOG_USEC", "0")) / 1e6 / _BEATS_A_WATCHDOG
        self._beat_at_s = 0.0

    def ready(self, text: str) -> None:
        """We work; `text` stands in ``systemctl status``."""
        self._send(f"READY=1\nSTATUS={text}")

    def alive(self, now_s: float) -> None:
        """Called at least every second; tells the watchdog often enough."""
        if self._beat_s and now_s >= self._beat_at_s:
            self._beat_at_s = now_s + self._beat_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A leading @ is an abstract name.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), address)
        except OSError:
            return  # systemd will not hear of us, and act on that
