"""The gateway as a service of systemd: it says when it is ready, that it is alive, and when it goes."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_gateway.systemd import Notifier
from tests.gateway import FieldDevice, GatewayProcess, wait_for


class Manager:
    """The end of the socket that systemd would hold."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        while True:
            try:
                self.heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(folder: Path) -> Iterator[Manager]:
    found = Manager(folder / "notify")
    yield found
    found.close()


def test_ready_alive_and_stopping(
    folder: Path, broker: EmbeddedMosquitto, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "900000")
    gateway = GatewayProcess(folder, broker, broker)
    try:
        gateway.start()
        wait_for(lambda: manager.listen().count("WATCHDOG=1") >= 3, "signs of life")
        assert manager.heard[0] == "READY=1\nSTATUS=gateway gw-1"
        assert gateway.events("gateway-started")
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        # Heard all the time: what does not fit behind signs of life that nobody has taken is dropped.
        wait_for(lambda: manager.listen() and not gateway.alive, "it ends")
        assert gateway.wait_dead() == 0
        assert manager.listen()[-1] == "STOPPING=1"
    finally:
        gateway.kill()


def test_a_turn_that_hangs_gives_no_sign_of_life(
    folder: Path, broker: EmbeddedMosquitto, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network threads go on, and would hide it: only the service's own turn counts."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    gateway = GatewayProcess(folder, broker, broker)
    device = FieldDevice(broker.port)
    try:
        gateway.start(mutant="sync-hangs")
        wait_for(lambda: "WATCHDOG=1" in manager.listen(), "signs of life before the first sync")
        wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
        device.send_all([{"level": 1}])
        wait_for(lambda: gateway.events("sync-hangs"), "the sync hangs")
        manager.listen()
        manager.heard.clear()
        ten_beats_s = time.monotonic() + 1.0
        wait_for(lambda: time.monotonic() > ten_beats_s, "ten beats")
        assert gateway.alive
        assert manager.listen() == []
    finally:
        device.close()
        gateway.kill()


def test_outside_systemd_and_with_a_socket_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000"}):
        notifier = Notifier(environment)
        notifier.ready("x")
        notifier.alive(1.0)
        notifier.stopping()
