"""Stories: what happens to a city, and what alerts there must be, as text on simulated time; played through a real broker, a
real ingest worker and a real database.

    # A leak, acknowledged; the worker is killed in the middle.
    rule      gas-ch4-void
    0..30/10  well/ch4_lel 60
    alert     gas-ch4-void well red 30 open
    ack       gas-ch4-void well li
    kill
    40..100/10  well/ch4_lel 1
    alert     gas-ch4-void well red 30 100 acked=li

Lines are played in order. Seconds are event time, counted from the story's own beginning.

``rule ID``             arm this shipped rule (before anything else).
``A..B/STEP D/M V``     the gateway says that metric M of device D is V, every STEP seconds from A to B; ``A D/M V`` once. Times
                        before those of earlier lines come late.
``again``               the gateway sends its last message once more, as after a lost acknowledgement.
``alert RULE D COLOUR RAISED CLEARED|open WORD…``  one of the alerts there must be now, with its highest colour; lines of it
                        that follow each other are all alerts there are. Words: ``acked=NAME``, ``hindsight``,
                        ``revised=SECOND``, ``withdrawn``, ``version=V`` (``+``: that of an override).
``no alerts``           there is none.
``ack RULE D NAME``     NAME acknowledges the open alert.
``kill``, ``restart``   the worker is killed, or stopped, and started again.
``override RULE TEXT``  the city overrides settings of RULE (TOML, ``;`` between lines) and tells the worker.
``refused RULE TEXT``   it tries to, and the worker refuses.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from citynet.reading import Reading
from citynet_rules.rule import COLOURS
from tests.ingest import GatewayPeer, IngestProcess, query, wait_for

_SAY = re.compile(r"(-?[\d.]+)(?:\.\.(-?[\d.]+)/([\d.]+))?")
_SECOND_US = 1_000_000
WORDS = {"rule", "again", "alert", "no", "ack", "kill", "restart", "override", "refused"}
_ALERTS = """
SELECT a.rule_id, a.object, a.level_max, (extract(epoch FROM a.raised_at) * 1000000)::bigint,
       (extract(epoch FROM a.cleared_at) * 1000000)::bigint, a.acked_by, a.known_at IS NOT NULL, a.rule_version,
       (SELECT evidence -> 'revised' FROM alert_transition t WHERE t.alert_id = a.id AND t.kind = 'revise'
        ORDER BY t.id DESC LIMIT 1)
FROM alert a ORDER BY a.raised_at, a.recorded_at, a.rule_id
"""


@dataclass(frozen=True)
class Line:
    """One line of a story: its number, its first word, and the rest."""

    number: int
    word: str
    rest: str


def parse(text: str) -> list[Line]:
    """The lines of a story, without comments. ValueError names the line that is none."""
    lines = []
    for number, raw in enumerate(text.splitlines(), start=1):
        content = raw.partition("#")[0].strip()
        word, _, rest = content.partition(" ")
        if not word:
            continue
        if word not in WORDS and not _SAY.fullmatch(word):
            raise ValueError(f"line {number}: {word!r} is neither a time nor one of {', '.join(sorted(WORDS))}")
        lines.append(Line(number, word, rest.strip()))
    return lines


def readings_of(line: Line, start_us: int) -> list[Reading]:
    """What the gateway says on a line."""
    found = _SAY.fullmatch(line.word)
    name, _, value = line.rest.partition(" ")
    device, _, metric = name.partition("/")
    if found is None or not metric or not value:
        raise ValueError(f"line {line.number}: SECONDS DEVICE/METRIC VALUE was expected")
    first, last, step = float(found[1]), float(found[2] or found[1]), float(found[3] or 1)
    seconds = [first + k * step for k in range(int((last - first) / step + 1e-9) + 1)]
    return [Reading(device, metric, start_us + round(second * _SECOND_US), float(value)) for second in seconds]


class Story:
    """A story being played."""

    def __init__(self, lines: Sequence[Line], peer: GatewayPeer, dsn: str, start_us: int) -> None:
        self._lines = lines
        self._peer = peer
        self._dsn = dsn
        self._start_us = start_us
        self._seq = 0
        self._last: tuple[int, list[Reading]] = (1, [])
        self._overrides = {line.rest: "" for line in lines if line.word == "rule"}

    def write_rules(self, path: Path, overrides: dict[str, str] | None = None) -> None:
        """The city's rule file: an override brings its rule along."""
        head = 'author = "story"\nreason = "story"\ndate = 2026-01-01\n'
        given = self._overrides if overrides is None else overrides
        tables = (f'[[override]]\nrule = "{rule}"\n{head}{text}\n' for rule, text in given.items())
        path.write_text("".join(tables), encoding="utf-8")

    def play(self, worker: IngestProcess, rules: Path) -> None:
        """Every line in order; at the end nothing waits for hindsight, and the last list of alerts still holds."""
        expected: list[Line] = []
        for position, line in enumerate(self._lines):
            before = self._lines[position - 1].word if position else ""
            if line.word in ("alert", "no"):
                expected = [*expected, line] if before == line.word == "alert" else [line]
                following = self._lines[position + 1].word if position + 1 < len(self._lines) else ""
                if following != "alert":
                    self._check(expected)
            else:
                self._do(line, worker, rules)
        assert expected, "a story says what alerts there are"
        wait_for(lambda: not query(self._dsn, "SELECT 1 FROM late_span"), "hindsight has looked at everything")
        self._check(expected)

    def _do(self, line: Line, worker: IngestProcess, rules: Path) -> None:
        if line.word in ("kill", "restart"):
            worker.kill() if line.word == "kill" else worker.stop()
            before = worker.log.read_text().count("broker-connected")
            worker.start()
            wait_for(lambda: worker.log.read_text().count("broker-connected") > before, "the worker is back")
        elif line.word == "ack":
            self._acknowledge(*line.rest.split())
        elif line.word in ("override", "refused"):
            self._override(line, worker, rules)
        elif line.word == "again":
            seq, readings = self._last
            self._peer.send(seq, readings)
            self._peer.wait_acked(self._seq)
        elif line.word != "rule":
            readings = readings_of(line, self._start_us)
            self._last = (self._seq + 1, readings)
            self._peer.send(self._seq + 1, readings)
            self._seq += len(readings)
            self._peer.wait_acked(self._seq)

    def _override(self, line: Line, worker: IngestProcess, rules: Path) -> None:
        rule, _, text = line.rest.partition(" ")
        changed = self._overrides | {rule: text.replace(";", "\n")}
        word = "rules-refused" if line.word == "refused" else "rules-armed"
        before = worker.log.read_text().count(word)
        self.write_rules(rules, changed)
        worker.running.send_signal(signal.SIGHUP)
        wait_for(lambda: worker.log.read_text().count(word) > before, f"line {line.number}: {word}")
        if line.word == "override":
            self._overrides = changed

    def _acknowledge(self, rule: str, device: str, name: str) -> None:
        with psycopg.connect(self._dsn) as connection:
            connection.execute("SELECT lock_transitions()")
            done = connection.execute(
                "WITH seen AS (UPDATE alert SET acked_at = now(), acked_by = %s WHERE rule_id = %s AND object = %s"
                " AND cleared_at IS NULL RETURNING id, level) INSERT INTO alert_transition (alert_id, kind, level, at, actor)"
                " SELECT id, 'ack', level, now(), %s FROM seen",
                (name, rule, device, name),
            )
            assert done.rowcount == 1, f"there is no open alert of {rule} at {device}"

    def _check(self, expected: Sequence[Line]) -> None:
        wanted = [self._wanted(line) for line in expected if line.word == "alert"]
        place = f"lines {expected[0].number} to {expected[-1].number}"
        with suppress(AssertionError):
            wait_for(lambda: self._alerts() == wanted, place)
        assert self._alerts() == wanted, place

    def _wanted(self, line: Line) -> str:
        """A line as `_alerts` would tell it."""
        rule, device, colour, raised, cleared, *words = line.rest.split()
        return " ".join([rule, device, colour, f"{float(raised):g}", cleared, *sorted(words)])

    def _alerts(self) -> list[str]:
        versions = any("version=" in line.rest for line in self._lines)
        return [self._told(*row, versions=versions) for row in query(self._dsn, _ALERTS)]

    def _told(self, rule: str, device: str, level: int, raised: int, cleared: int | None, acked: str | None,
              hindsight: bool, version: str, revised: dict[str, Any] | None, *, versions: bool) -> str:  # fmt: skip
        words = [f"acked={acked}"] if acked else []
        words += ["hindsight"] if hindsight else []
        words += [f"version={'+' if '+' in version else version}"] if versions else []
        if revised is not None:
            words.append("withdrawn" if revised["withdrawn"] else f"revised={self._second(revised['raised_us'])}")
        end = "open" if cleared is None else self._second(cleared)
        return " ".join([rule, device, COLOURS[level - 1], self._second(raised), end, *sorted(words)])

    def _second(self, time_us: int) -> str:
        return f"{(time_us - self._start_us) / _SECOND_US:g}"
