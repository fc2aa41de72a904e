"""The run: live line, chaos, drain, verdict."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from citynet.demo import figures
from citynet.demo.figures import Connection, Figures
from citynet.demo.judge import Verdict, detected, judge, read_truth
from citynet.demo.stage import Stage

_LINE_S = 1.0
_DRAIN_S_MAX = 90.0
_STOP_S_MAX = 60.0  # at the end of a run nobody waits for a prompt: what is killed tells less than it could
_CHAOS_GAP_S = (3.0, 9.0)


@dataclass(slots=True)
class Summary:
    """What the demo prints at the end, as one JSON object."""

    figures: Figures
    verdict: Verdict
    incidents: int
    incidents_detected: int
    books_balanced: bool
    kills: int
    first_alert_after_s: float | None
    restarts: dict[str, int] = field(default_factory=dict)

    @property
    def is_success(self) -> bool:
        complete = self.incidents == self.incidents_detected and self.figures.in_spool == 0
        return self.books_balanced and self.verdict.is_clean and complete

    def to_json(self, seed: int) -> dict[str, object]:
        books, verdict = self.figures, self.verdict
        return {
            "ok": self.is_success,
            "seed": seed,
            "sent": verdict.sent,
            "accepted": books.accepted,
            "stored": books.stored,
            "dead_lettered": books.dead_lettered,
            "declared_lost": books.lost,
            "noted": books.noted,
            "in_spool": books.in_spool,
            "balanced": self.books_balanced,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "unexpected": verdict.unexpected,
            "recovered": verdict.recovered,
            "alerts": books.alerts,
            "incidents": self.incidents,
            "incidents_detected": self.incidents_detected,
            "first_alert_after_s": self.first_alert_after_s,
            "kills": self.kills,
            "restarts": self.restarts,
        }


class Chaos:
    """Kills ingest or a gateway with SIGKILL at random moments; the supervisor starts it again."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._random = random.Random(seed)  # noqa: S311  (reproducible, not secret)
        self._next = time.monotonic() + self._random.uniform(*_CHAOS_GAP_S)
        self.kills = 0

    def act(self, say: Callable[[str], None]) -> None:
        if time.monotonic() < self._next:
            return
        victim = self._random.choice(["ingest", *self._stage.settings.gateways])
        self._stage.supervisor.kill(victim)
        self.kills += 1
        say(f"chaos: kill -9 {victim}")
        self._next = time.monotonic() + self._random.uniform(*_CHAOS_GAP_S)


def play(stage: Stage, seconds: float | None, chaos: Chaos | None, *, is_quiet: bool) -> None:
    """Let the city run; returns after `seconds` (never without)."""
    end = None if seconds is None else time.monotonic() + seconds
    last_stored, last_time = 0, time.monotonic()
    with stage.connect() as connection:
        while end is None or time.monotonic() < end:
            stage.supervisor.check()
            if chaos is not None:
                chaos.act(stage.say)
            now = time.monotonic()
            if now - last_time >= _LINE_S:
                current = figures.read(connection)
                rate = (current.stored - last_stored) / (now - last_time)
                last_stored, last_time = current.stored, now
                if not is_quiet:
                    show(figures.live_line(current, rate, None if end is None else max(0.0, end - now)))
            time.sleep(0.1)


def show(line: str) -> None:
    """The live line: rewritten in place on a terminal, a line each elsewhere."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="", flush=True)  # noqa: T201
    else:
        print(line, flush=True)  # noqa: T201


def finish(stage: Stage, started_s: float, chaos: Chaos | None) -> Summary:
    """Stop the simulator, let everything drain, compare with the truth."""
    _catch_up(stage)
    stage.supervisor.stop(["sim"], _STOP_S_MAX)
    truth = read_truth(stage.truth)
    required = sum(len(truth.messages[n]) for n in truth.certain())
    stage.say("draining")
    with stage.connect() as connection:
        _drain(stage, connection, required)
        # A gateway's last status says what it still holds; it is sent at its stop.
        stage.supervisor.stop(list(stage.settings.gateways), _STOP_S_MAX)
        _settle(connection)
        books = figures.read(connection)
        verdict = judge(truth, figures.stored_readings(connection))
        raised = figures.raised_alerts(connection)
    found = sum(detected(incident, raised) for incident in truth.incidents)
    first = None if books.first_alert_s is None else round(books.first_alert_s - started_s, 1)
    balanced = _is_audit_clean(stage) and books.is_balanced
    restarts = {role.name: role.restarts for role in stage.supervisor.roles.values() if role.restarts}
    kills = chaos.kills if chaos is not None else 0
    return Summary(books, verdict, len(truth.incidents), found, balanced, kills, first, restarts)


def _catch_up(stage: Stage) -> None:
    """A simulator that was held up has yet to say what happened meanwhile; stopped at once, it never would."""
    over_us, deadline = time.time_ns() // 1000, time.monotonic() + _STOP_S_MAX
    while read_truth(stage.truth).owes(over_us) and time.monotonic() < deadline:
        stage.supervisor.check()
        time.sleep(0.5)


def _drain(stage: Stage, connection: Connection, required: int) -> None:
    """Wait until what the devices were promised is stored and the spools are empty, or for as long as is reasonable."""
    deadline = time.monotonic() + _DRAIN_S_MAX
    while time.monotonic() < deadline:
        stage.supervisor.check()
        books = figures.read(connection)
        if books.in_spool == 0 and figures.device_readings(connection) >= required:
            return
        time.sleep(0.2)


def _settle(connection: Connection) -> None:
    """The gateways' last batches may be a moment behind their exit; two equal looks end the wait."""
    before = figures.read(connection)
    for _ in range(50):
        time.sleep(0.2)
        now = figures.read(connection)
        if now.in_spool == 0 and now.accepted == before.accepted:
            return
        before = now


def _is_audit_clean(stage: Stage) -> bool:
    command = [sys.executable, "-m", "citynet", "audit", "--json", "--config", str(stage.config)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
