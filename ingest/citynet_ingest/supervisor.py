"""The supervisor of several workers: deals the shards, starts a process for each part, starts again what dies, stops all.

Only a worker that was killed is started again. One that ends by itself says why going on is impossible (its shards are
taken, the schema is another's, a rule file is wrong); then all are stopped, and whoever watches the supervisor decides.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter

from citynet.runtime import child, log
from citynet.runtime.metrics import REGISTRY

_POLL_S = 0.1
_PAUSE_S = 0.5
_PAUSE_S_MAX = 30.0
_CALM_S = 60.0  # after so long a life the next death is the first again
_STOP_GRACE_S = 15.0
_RESTARTS = Counter(
    "citynet_ingest_worker_restarts", "Workers started again after they died.", ["worker"], registry=REGISTRY
)
_log = log.get("supervisor")


@dataclass(slots=True)
class _Place:
    """One worker's place: its name, how to start it, its process, and when to start it again."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    started_at: float
    pause_s: float = _PAUSE_S
    restart_at: float | None = None


class Supervisor:
    """Workers from `run` until `stop`."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._reloading = threading.Event()

    def reload(self) -> None:
        """Let all workers read their rules anew; safe to call from a signal handler."""
        self._reloading.set()

    def stop(self) -> None:
        """End `run`; safe to call from a signal handler."""
        self._stopping.set()

    def run(self, commands: Sequence[tuple[str, Sequence[str]]]) -> int:
        """Keep a process up for every (name, command) until `stop`, or until one of them ends by itself.

        Returns:
            Exit code: 0 after `stop` if all ended well, else that of the first that did not (1 if it had to be killed).
        """
        places = [self._place(name, command) for name, command in commands]
        code = 0
        while code == 0 and not self._stopping.wait(_POLL_S):
            code = next((found for place in places if (found := self._look_after(place)) > 0), 0)
            if self._reloading.is_set():
                self._reloading.clear()
                for place in places:
                    place.process.send_signal(signal.SIGHUP)
        return self._end(places) or code

    @staticmethod
    def _place(name: str, command: Sequence[str]) -> _Place:
        def start() -> subprocess.Popen[bytes]:
            process = child.spawn(command, sys.stderr.fileno(), folder=Path.cwd())
            _log.info("worker-started", worker=name, process=process.pid)
            return process

        return _Place(name, start, start(), time.monotonic())

    def _look_after(self, place: _Place) -> int:
        """Start it again when it was killed and its pause is over; a code above 0 if it ended by itself with that."""
        code = place.process.poll()
        now = time.monotonic()
        if code is None:
            return 0
        if code > 0:
            _log.error("worker-ended", worker=place.name, code=code)
            return code
        if place.restart_at is None:
            if now - place.started_at > _CALM_S:
                place.pause_s = _PAUSE_S
            place.restart_at = now + place.pause_s
            _log.warning("worker-died", worker=place.name, signal=-code, again_in_s=place.pause_s)
            place.pause_s = min(2 * place.pause_s, _PAUSE_S_MAX)
        elif now >= place.restart_at:
            place.restart_at, place.started_at = None, now
            place.process = place.start()
            _RESTARTS.labels(place.name).inc()
        return 0

    @staticmethod
    def _end(places: Sequence[_Place]) -> int:
        """Ask all to stop, together; then insist. The first bad exit code, 0 if there is none."""
        alive = [place for place in places if place.process.poll() is None]
        for place in alive:
            place.process.terminate()
        deadline = time.monotonic() + _STOP_GRACE_S
        codes = [child.stop(place.process, grace_s=max(0.1, deadline - time.monotonic())) for place in alive]
        bad = [code for code in codes if code not in (0, -signal.SIGTERM)]  # not ready yet to be asked: it just ends
        return next((code if code > 0 else 1 for code in bad), 0)
