"""Hindsight of a worker: a thread beside its commits that judges again what late readings may have changed.

It reads stored rows, and writes in one transaction what it found and that it looked. So a crash costs a look and nothing else,
and every finding is recorded once. One worker at a time does it for all (a lock of the database), half of the time at most;
what waits is a row a series.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg

from citynet.runtime import log
from citynet_ingest import metrics
from citynet_ingest.store import late
from citynet_ingest.store.late import Connection, LateSpan
from citynet_rules.retrospect import Hindsight as Found
from citynet_rules.retrospect import judge, memory_us, rejudged
from citynet_rules.spec import RuleSet

READINGS_MAX = 100_000  # of one series in a window, from the memory of its rules before the first late reading on
AFTER_US = 86_400_000_000  # how far behind the last late reading a window reaches, besides the memory of its rules
SPANS_MAX = 100  # taken at a time
PATIENCE = 30  # times the settling time
_LOOK_S = 1.0
_TIMEOUT = "30s"
_log = log.get("hindsight")


class Hindsight:
    """The thread; `rules` tells the rules as they run at the time."""

    def __init__(self, connect: Callable[[], Connection], rules: Callable[[], RuleSet], settle_s: float) -> None:
        self._connect = connect
        self._rules = rules
        self._settle_s = settle_s
        self._stop = threading.Event()
        self._outage = log.OutageLog(_log, "hindsight")
        self._thread = threading.Thread(target=self._run, name="hindsight", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more. What is under way may be lost, and is done again at the next start."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    connection.execute(f"SET statement_timeout = '{_TIMEOUT}'".encode())
                    self._watch(connection)
            except psycopg.Error as error:
                self._outage.failed(error)
                self._stop.wait(5 * _LOOK_S)

    def _watch(self, connection: Connection) -> None:
        while not self._stop.is_set():
            busy_s = self.look(connection) if self._is_ours(connection) else 0.0
            self._outage.worked()
            self._stop.wait(max(_LOOK_S, busy_s))

    def _is_ours(self, connection: Connection) -> bool:
        """One worker at a time. The lock is taken once a session and let go with it."""
        row = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted)"
            " OR pg_try_advisory_lock(hashtext('citynet.hindsight'))"
        ).fetchone()
        return bool(row and row[0])

    def look(self, connection: Connection) -> float:
        """Judge what is due; seconds that it took."""
        started = time.perf_counter()
        spans = late.due(connection, self._settle_s, PATIENCE * self._settle_s, SPANS_MAX)
        for span in spans:
            if self._stop.is_set():
                break
            metrics.HINDSIGHT.labels(self._judge(connection, span)).inc()
        metrics.LATE_SPANS.set(late.waiting(connection))
        return time.perf_counter() - started

    def _judge(self, connection: Connection, span: LateSpan) -> str:
        """Judge one series; what came of it."""
        try:
            return self._judged(connection, span)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001  (supervisor of this look: one series' data must not end all hindsight)
            _log.error("hindsight-failed", series=span.info.id, device=span.info.device, error=repr(error))
            late.record(connection, span, None, ())
            return "failed"

    def _judged(self, connection: Connection, span: LateSpan) -> str:
        rules = rejudged(self._rules(), span.info)
        if not rules:
            return "unwatched" if late.record(connection, span, None, rules) else "changed"
        memory = memory_us(rules)
        end_us = span.to_us + memory + AFTER_US
        rows = late.window(connection, span.info.id, span.from_us - memory, end_us, READINGS_MAX)
        known = late.known(connection, rules, span.info.device, span.from_us - memory, end_us)
        found = judge(rules, span.info, rows, known, span.known_us)
        if not late.record(connection, span, found, rules):
            return "changed"
        self._tell(span, found)
        return "too_long" if len(rows) == READINGS_MAX and rows.time_us[-1] < span.to_us else "judged"

    def _tell(self, span: LateSpan, found: Found) -> None:
        withdrawn = sum(each.withdrawn for each in found.revised)
        counts = {
            "raised": len(found.raised),
            "revised": len(found.revised) - withdrawn,
            "withdrawn": withdrawn,
            "dropped": found.dropped,
        }
        for what, count in counts.items():
            metrics.HINDSIGHT_FOUND.labels(what).inc(count)
        if any(counts.values()):
            _log.warning("hindsight", device=span.info.device, metric=span.info.metric, **counts)
