"""A gateway process whose field side is a driver under test, one broker for everything else, and the server stand-in."""

from __future__ import annotations

from pathlib import Path

from citynet.notes import RawNote
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.gateway import GatewayProcess, ServerPeer, wait_for


class Cabinet:
    """`tables` is TOML behind ``[gateway]``: the drivers' settings."""

    def __init__(self, folder: Path, tables: str, **settings: object) -> None:
        self.folder = folder
        self.broker = EmbeddedMosquitto(folder / "broker")
        self.broker.start()
        self.gateway = GatewayProcess(folder, self.broker, self.broker, settings, tables)
        self.server = ServerPeer(self.broker.port)

    def configure(self, tables: str, **settings: object) -> None:
        """New settings, for the next start."""
        self.gateway = GatewayProcess(self.folder, self.broker, self.broker, settings, tables)

    def start(self, event: str, failpoint: str = "", mutant: str = "") -> dict[str, object]:
        """Start the gateway and wait for this event of its log; its newest entry."""
        before = len(self.gateway.events(event))
        self.gateway.start(failpoint, mutant)
        found = wait_for(lambda: self.gateway.events(event)[before:], event)
        entry: dict[str, object] = found[-1]
        return entry

    def readings(self) -> list[tuple[str, float]]:
        """(name, value) of the field's readings, in the order stored."""
        with self.server._lock:
            return [(name, value) for *_, name, value in self.server.stored]

    def wait_readings(self, count: int) -> list[tuple[str, float]]:
        wait_for(lambda: len(self.readings()) >= count, f"{count} readings at the server")
        return self.readings()

    @property
    def is_full(self) -> bool:
        """Whether the gateway says that its spool is full."""
        return bool(self.server.statuses) and self.server.statuses[-1].full

    def raws(self) -> list[RawNote]:
        with self.server._lock:
            return [note for *_, note in self.server.notes if isinstance(note, RawNote)]

    def close(self) -> None:
        self.gateway.kill()
        self.server.close()
        self.broker.stop()
