"""Supervised role processes: started, restarted when they die, killed by chaos, stopped together."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from citynet.errors import CitynetError
from citynet.runtime import child

_RESTARTS_MAX = 50
_RESTART_PAUSE_S = 0.3
_STOP_GRACE_S = 3.5


class RoleError(CitynetError):
    """A role process failed for good; the message shows the end of its log."""


@dataclass(slots=True)
class Role:
    """One ``citynet …`` process and its log."""

    name: str
    arguments: list[str]
    log: Path
    keeps_running: bool = True
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    died_at: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = child.spawn([sys.executable, "-m", "citynet", *self.arguments], output)

    def tail(self, count: int = 8) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.exists() else ""


@dataclass(slots=True)
class Supervisor:
    """Role processes by name, in the order of their start."""

    folder: Path
    say: Callable[[str], None]
    roles: dict[str, Role] = field(default_factory=dict)

    def start(self, name: str, arguments: list[str], *, keeps_running: bool = True) -> Role:
        role = Role(name, arguments, self.folder / f"{name}.log", keeps_running)
        self.roles[name] = role
        role.start()
        return role

    def check(self) -> None:
        """Restart what died. RoleError when a role does not stay up."""
        for role in self.roles.values():
            if role.process is None or role.process.poll() is None or not role.keeps_running:
                continue
            if role.died_at == 0.0:
                role.died_at = time.monotonic()
            if time.monotonic() - role.died_at < _RESTART_PAUSE_S:
                continue
            role.restarts += 1
            if role.restarts > _RESTARTS_MAX or role.process.returncode in (1, 2):
                raise RoleError(f"{role.name} ended with exit code {role.process.returncode}:\n{role.tail()}")
            role.died_at = 0.0
            role.start()

    def kill(self, name: str) -> None:
        """kill -9, as chaos; `check` starts it again."""
        process = self.roles[name].process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def stop(self, names: Sequence[str] | None = None, grace_s: float = _STOP_GRACE_S) -> None:
        """SIGTERM to all of them at once, SIGKILL to those that take longer than `grace_s`."""
        chosen = [self.roles[name] for name in (names if names is not None else list(self.roles)) if name in self.roles]
        for role in chosen:
            role.keeps_running = False
            if role.process is not None and role.process.poll() is None:
                role.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for role in chosen:
            if role.process is None:
                continue
            try:
                role.process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{role.name} did not stop in time and was killed")
                role.process.kill()
                role.process.wait()
