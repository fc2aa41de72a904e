"""The committer: takes parcels, makes commits, survives the database.

Connection-class errors are retried without acknowledging anything. An error that the data causes throws the worker's state
away, rebuilds it from the database, and cuts the parcels in halves until the record that the database refuses stands alone
and goes to dead letter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import psycopg

from citynet.batch import I64, Batch, SeriesBatch
from citynet.errors import CitynetError
from citynet.formats import Reject
from citynet.reading import Reading
from citynet.runtime import log
from citynet_ingest import checkpoint, metrics, report
from citynet_ingest.commit import Answers, Commit
from citynet_ingest.copybody import days_of
from citynet_ingest.lanes import lanes_of
from citynet_ingest.letter import reopen
from citynet_ingest.ownership import StoppedError, as_bytes, claim, formers, last_commit, lock
from citynet_ingest.parcel import BatchParcel, DirectParcel, Parcel, RedriveParcel
from citynet_ingest.plan import Planner
from citynet_ingest.rearm import Offer, successor
from citynet_ingest.recovery import revive
from citynet_ingest.registry import Registry
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.sources import Sources
from citynet_ingest.state import Receipts, State, cursor_keys, message_keys, names_of
from citynet_ingest.store import redrive, sql
from citynet_ingest.store.arming import arm, retire_outlived
from citynet_ingest.store.rollups import days_of_partials
from citynet_ingest.store.transaction import Connection, Partitions, Target, apply, copy_rows
from citynet_ingest.watchdog import Watchdog
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine
from citynet_rules.spec import RuleSet

T = TypeVar("T")
_PATIENCE_S = 3.0  # at the start; a killed predecessor's connection ends within milliseconds
_PATIENCE_AGAIN_S = 60.0  # after a connection of our own was lost: longer than the server's probes take
_RECOVER_PATIENCE_S = 900.0
_TRIM_S = 10.0  # so often message keys that are past their time are removed
_log = log.get("committer")


_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)


class _RefusedError(Exception):
    """The database refuses the data of a commit."""


class Committer:
    """Owns the database connection and the state of one worker. Lives on one thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        settings: IngestSettings,
        rules: RuleSet,
        watermarks: Watermarks,
    ) -> None:
        self._connect = connect
        self._settings = settings
        self._given = rules  # as the files have them
        self._rules = rules  # as they run: what is not proved, in shadow
        self.offer = Offer()
        self._watermarks = watermarks
        self._connection: Connection | None = None
        self._partitions = Partitions()
        self._registry = Registry()
        self._receipts_keep = 2 * settings.receive_maximum
        self._sources = Sources(settings.sources)
        self._lanes = lanes_of(parse_shards(settings.shards))
        self._claim = 0
        self._number = 0
        self._snapshot_at = 0.0
        self._trimmed_at = 0.0
        self._has_columnstore = False
        self._outage = log.OutageLog(_log, "database")
        self._has_owned = False
        self.lanes_before: frozenset[int] | None = None  # those of ours that somebody had worked on before this start
        self.stopping = threading.Event()
        self.watchdog = Watchdog()
        self.state = self._fresh_state()

    @property
    def is_database_up(self) -> bool:
        return not self._outage.failing

    def _fresh_state(self) -> State:
        receipts = {lane: Receipts(self._receipts_keep) for lane in self._lanes}
        return State(Engine(self._rules), receipts, self._watermarks)

    # --- connection and recovery ---

    def recover(self) -> None:
        """Connect, own the shards, and rebuild what this worker knows. Retries until the database is there."""
        self._retry(self._open)
        self._retry(self._rebuild, _RECOVER_PATIENCE_S)

    def close(self) -> None:
        self.watchdog.detach()
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = self._connect()
        self.watchdog.attach(connection.pgconn.socket)
        try:
            timeout_ms = int(self._settings.commit_statement_timeout_s * 1000)
            connection.execute(f"SET statement_timeout = {timeout_ms}")
            # Whatever the server's default is: the guarantee needs it.
            connection.execute("SET synchronous_commit = on")
            patience_s = _PATIENCE_AGAIN_S if self._has_owned else _PATIENCE_S
            lock(connection, self._lanes, patience_s, self.stopping, self.watchdog)
            self._has_owned = True
        except BaseException:
            self.watchdog.detach()
            connection.close()
            raise
        row = connection.execute(sql.text("has_columnstore")).fetchone()
        self._has_columnstore = bool(row and row[0])
        self._connection = connection
        self._partitions.forget()
        return connection

    def _rebuild(self) -> None:
        """The state as the database has it, our lanes' parts of what their former owners left, under a new claim.

        Reading it and taking the claim happen on the connection that holds the locks: nobody commits in between.
        """
        connection = self._open()
        self._rules = arm(connection, self._given, self._settings.worker)
        report.armed(self._rules)
        state = self._fresh_state()
        series = self._registry.load(connection)
        before = formers(connection, self._lanes)
        found, reread = revive(connection, state, series, before, self._lanes)
        commit = Commit(1, SeriesBatch.empty(), transitions=found)
        checkpoint.take(state, commit, _now_us())
        self._partitions.forget()  # a commit that was refused may have missed one
        self._partitions.ensure(connection, days_of_partials(commit.partials))
        with connection.transaction():
            self._claim = claim(connection, self._lanes, self._settings.worker)
            apply(connection, commit, self._target())
        self._number = commit.number
        self.state = state
        if self.lanes_before is None:
            self.lanes_before = frozenset().union(*(former.held for former in before))
        self._snapshot_at = time.monotonic()
        _log.info("recovered", series=len(series), reread=reread, transitions=len(found), claim=self._claim)

    def check(self) -> None:
        """Make sure that our lanes are still ours. FencedError, ShardTakenError: they are not."""
        self._retry(lambda: last_commit(self._open(), self._claim))

    # --- commits ---

    def process(self, parcels: Sequence[Parcel]) -> list[Answers]:
        """Make these parcels durable; returns what may be answered, in order. Blocks while the database is away."""
        try:
            return [self._process(parcels)]
        except _RefusedError as error:
            _log.warning("commit-refused", error=str(error), parcels=len(parcels))
            self.recover()
            return self._isolate(parcels, str(error))

    def _isolate(self, parcels: Sequence[Parcel], error: str) -> list[Answers]:
        """Commit the halves; a single record that is refused alone is dead-lettered."""
        if len(parcels) > 1:
            middle = len(parcels) // 2
            return self.process(parcels[:middle]) + self.process(parcels[middle:])
        parcel = parcels[0]
        if isinstance(
            parcel, RedriveParcel
        ):  # the letter stays what it is; another worker may have stored its key first
            return [self._process([parcel.failed(Reject("refused-by-database", "row", error))])]
        rows = self._rows(parcel)
        refused = self._refused(rows, np.arange(len(rows)))
        if not refused:  # another worker may have stored the same key first; it is found at the second try
            try:
                return [self._process([parcel])]
            except _RefusedError:
                reason = f"the database refuses a message for another reason than its readings: {error}"
                raise CitynetError(reason) from None
        return [self._process([condemned(parcel, refused, error)])]

    def _rows(self, parcel: Parcel) -> SeriesBatch:
        """The readings of one parcel, in its own order."""
        self._retry(lambda: self._prepare([parcel]))
        ids = self._registry.ids
        if isinstance(parcel, BatchParcel):
            batch = parcel.batch
            series = np.array([ids[batch.names[k]] for k in batch.index], np.int32)
            return SeriesBatch(series, batch.time_us, batch.value, batch.quality)
        readings = parcel.readings if isinstance(parcel, DirectParcel) else []
        return SeriesBatch(
            np.array([ids[r.name] for r in readings], np.int32), np.array([r.time_us for r in readings], np.int64),
            np.array([r.value for r in readings], np.float64), np.array([r.quality for r in readings], np.uint8),
        )  # fmt: skip

    def _refused(self, rows: SeriesBatch, picked: I64) -> list[int]:
        """Which of the picked rows the database refuses, found by trial in transactions that are rolled back."""
        if not len(picked) or self._retry(lambda: self._is_accepted(rows, picked)):
            return []
        if len(picked) == 1:
            return [int(picked[0])]
        middle = len(picked) // 2
        return self._refused(rows, picked[:middle]) + self._refused(rows, picked[middle:])

    def _is_accepted(self, rows: SeriesBatch, picked: I64) -> bool:
        part = SeriesBatch(rows.series[picked], rows.time_us[picked], rows.value[picked], rows.quality[picked])
        connection = self._open()
        self._partitions.ensure(connection, days_of(part))
        try:
            with connection.transaction(force_rollback=True):
                copy_rows(connection, part, has_columnstore=False)
        except (psycopg.DataError, psycopg.IntegrityError):
            return False
        return True

    def redrive(self, now_us: int) -> list[Answers]:
        """Try again a few of the dead letters that somebody asked for, in a commit of their own."""
        shards = parse_shards(self._settings.shards)
        letters = self._retry(lambda: redrive.asked(self._open(), shards))
        if not letters:
            return []
        content_type = self._settings.direct_content_type
        return self.process([reopen(letter, content_type, self._sources, now_us) for letter in letters])

    def _process(self, parcels: Sequence[Parcel]) -> Answers:
        self._retry(lambda: self._prepare(parcels))
        credit = max(1, self._settings.receive_maximum // 2)
        started = time.perf_counter()
        commit, answers = Planner(self.state, self._registry, self._number + 1, credit).plan(parcels)
        planned = time.perf_counter()
        metrics.PLAN_S.observe(planned - started)
        if not commit.is_empty():
            self._store(commit)
            metrics.STORE_S.observe(time.perf_counter() - planned)
            report.committed(commit)
        elif answers.acks:
            self.check()  # nobody may be told of cursors that another worker has moved on
        return answers

    def _prepare(self, parcels: Sequence[Parcel]) -> None:
        """Fetch what planning needs from the database, before any state moves."""
        connection = self._open()
        unknown = sorted(cursor_keys(parcels) - self.state.cursors.keys())
        if unknown:
            gateways, streams, epochs = (list(column) for column in zip(*unknown, strict=True))
            found = connection.execute(
                sql.text("cursor_find"), {"gateways": gateways, "streams": streams, "epochs": epochs}
            )
            rows = {(str(g), str(s), int(str(e))): int(str(seq)) for g, s, e, seq in found.fetchall()}
            self.state.cursors.update({key: rows.get(key, 0) for key in unknown})
        wanted = message_keys(parcels)
        self.state.keys.clear()
        if wanted:
            known = connection.execute(sql.text("message_key_find"), {"digests": wanted}).fetchall()
            self.state.keys.update((as_bytes(digest), as_bytes(body)) for digest, body in known)
        missing = self._registry.missing(names_of(parcels))
        if missing:
            self.state.engine.bind(self._registry.add(connection, missing))

    def _store(self, commit: Commit) -> None:
        if time.monotonic() - self._snapshot_at > self._settings.snapshot_s:
            checkpoint.take(self.state, commit, _now_us())
        self._retry(lambda: self._try(commit))
        self._number = commit.number
        if commit.snapshot is not None:
            self._snapshot_at = time.monotonic()

    def _try(self, commit: Commit) -> None:
        connection = self._open()
        if last_commit(connection, self._claim) == commit.number:
            return  # the connection was lost during COMMIT, and the commit had gone through
        try:
            self._apply(connection, commit)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise _RefusedError(str(error).splitlines()[0]) from None

    def _apply(self, connection: Connection, commit: Commit) -> None:
        """Once more where a partition is missing that we knew: retention has dropped it, and a late reading is of its day."""
        days = days_of(commit.rows) + days_of_partials(commit.partials)
        self._partitions.ensure(connection, days)
        try:
            apply(connection, commit, self._target())
        except psycopg.errors.CheckViolation:
            self._partitions.forget()
            self._partitions.ensure(connection, days)
            apply(connection, commit, self._target())

    def _target(self) -> Target:
        return Target(self._settings.worker, self._claim, self._rules, self._receipts_keep, self._has_columnstore)

    def flush(self) -> None:
        """At a graceful stop: keep the engine's state, so that the next start has nothing to re-read."""
        commit = Commit(self._number + 1, SeriesBatch.empty())
        checkpoint.take(self.state, commit, _now_us())
        try:
            with self.watchdog.limit(self._settings.commit_timeout_s):
                self._try(commit)
        except _AWAY:
            return  # the database is away: the next start re-reads

    def tick(self, now_us: int, *, is_drained: bool) -> None:
        """The clock moved: rules that wait for silence may fire."""
        self._watermarks.tick(now_us, is_drained=is_drained)
        transitions = self.state.engine.advance(self._watermarks.take())
        due = time.monotonic() - self._snapshot_at > self._settings.snapshot_s
        if transitions or due:
            self._store(Commit(self._number + 1, SeriesBatch.empty(), transitions=transitions))
        if time.monotonic() - self._trimmed_at > _TRIM_S:
            self._trimmed_at = time.monotonic()
            keep = {"keep_s": self._settings.message_key_s}
            self._retry(lambda: self._open().execute(sql.text("message_key_trim"), keep))
            self._retry(lambda: retire_outlived(self._open()))

    def rearm(self) -> None:
        """Take on the rules that were offered, between two commits; where their files held mistakes, say so and go on."""
        rules, problems = self.offer.take()
        if problems:
            self._retry(
                lambda: self._open().execute(
                    sql.text("system_event_add"), report.refused(problems, self._settings.worker)
                )
            )
        if rules is None:
            return
        self._retry(lambda: self._rearm(rules))
        self._snapshot_at = 0.0  # the next tick keeps it

    def _rearm(self, rules: RuleSet) -> None:
        connection = self._open()
        running = arm(connection, rules, self._settings.worker)
        self.state.engine = successor(self.state.engine, running, self._registry.load(connection))
        self._given, self._rules = rules, running
        report.armed(running)

    def _retry(self, action: Callable[[], T], patience_s: float | None = None) -> T:
        """Do it; on connection-class errors again, with backoff, until it works or the worker stops.

        A try that takes longer than `patience_s` (unless given, what a commit may take) has its connection cut.
        """
        pause = 0.05
        while True:
            try:
                with self.watchdog.limit(patience_s or self._settings.commit_timeout_s):
                    result = action()
            except _AWAY as error:
                self._outage.failed(error)
                self._drop_connection(error)
                if self.stopping.wait(pause):
                    raise StoppedError("stopped while the database is away") from None
                pause = min(pause * 2, self._settings.retry_s_max)
            else:
                self._outage.worked()
                return result

    def _drop_connection(self, error: psycopg.Error) -> None:
        """A connection that is broken, or that leads to a server which turned read-only (a failover), is given up."""
        broken = self._connection is not None and (
            self._connection.broken or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        )
        if broken and self._connection is not None:
            self.watchdog.detach()
            self._connection.close()
            self._connection = None


def _now_us() -> int:
    return time.time_ns() // 1000


def condemned(parcel: Parcel, refused: list[int], error: str) -> Parcel:
    """The same parcel with the refused readings as dead letters. It stays one message, so it is stored once or not at all."""
    if isinstance(parcel, BatchParcel):
        batch = parcel.batch
        keep = np.ones(len(batch), np.bool_)
        keep[refused] = False
        rejects = [
            (
                int(batch.seq[k]),
                _refusal(_reading(batch, k), error),
            )
            for k in refused
        ]
        return msgspec.structs.replace(parcel, batch=batch.picked(keep, [*batch.rejects, *rejects]))
    if isinstance(parcel, DirectParcel):
        bad = set(refused)
        rejects_direct = [_refusal(r, error) for k, r in enumerate(parcel.readings) if k in bad]
        readings = [r for k, r in enumerate(parcel.readings) if k not in bad]
        rejects_all = [*parcel.rejects, *rejects_direct]
        names = tuple(r.name for r in readings)
        return msgspec.structs.replace(parcel, names=names, readings=readings, rejects=rejects_all)
    return parcel


def _reading(batch: Batch, row: int) -> Reading:
    device, _, metric = batch.names[int(batch.index[row])].partition("/")
    return Reading(device, metric, int(batch.time_us[row]), float(batch.value[row]), int(batch.quality[row]))


def _refusal(reading: Reading, error: str) -> Reject:
    detail = f"{reading.value} at {reading.time_us} µs since 1970: {error}"[:500]
    return Reject("refused-by-database", reading.name, detail, reading)
