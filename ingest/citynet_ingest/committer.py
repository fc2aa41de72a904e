"""The committer: takes parcels, makes commits, survives the database.

Connection-class errors are retried without acknowledging anything. An error that the data causes throws the worker's state
away, rebuilds it from the database, and cuts the parcels in halves until the record that the database refuses stands alone
and goes to dead letter.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import psycopg

from citynet.batch import I64, Batch, SeriesBatch
from citynet.errors import CitynetError
from citynet.formats import Reject
from citynet.ids import SHARDS, shard_of
from citynet.reading import Reading
from citynet.runtime import log
from citynet_ingest import metrics, report
from citynet_ingest.commit import Answers, Commit
from citynet_ingest.copybody import days_of
from citynet_ingest.letter import reopen
from citynet_ingest.parcel import BatchParcel, DirectParcel, Parcel, RedriveParcel
from citynet_ingest.plan import Planner, Receipts, State, cursor_keys, names_of
from citynet_ingest.registry import Registry
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.store import redrive, sql
from citynet_ingest.store.transaction import Connection, Partitions, Target, apply, arm, copy_rows
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.spec import RuleSet

T = TypeVar("T")
_SHARD_LOCK = 0x63697479  # first half of the advisory lock of a shard
_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PATIENCE_S = 3.0  # at the start; a killed predecessor's connection ends within milliseconds
_PATIENCE_AGAIN_S = 60.0  # after a connection of our own was lost: longer than the server's probes take
_PATIENCE_STEP_S = 0.1
_PROBES = """
    SELECT set_config(name, value, false) FROM (VALUES
        ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
        ('client_connection_check_interval', '5s')
    ) AS probe (name, value)"""  # the server notices in half a minute that we are gone, and lets go of our locks
_RECENT = dt.timedelta(hours=1)  # without a snapshot conditions older than this start afresh
_RECOVER_ROWS = 100_000
_RECOVER_TIMEOUT = "600s"  # re-reading what the engine missed may take longer than a commit may
_log = log.get("committer")


class ShardTakenError(CitynetError):
    """Another worker owns one of our shards."""


class StoppedError(CitynetError):
    """The worker is asked to stop while the database is away; nothing was acknowledged, everything comes again."""


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
        self._rules = rules
        self._watermarks = watermarks
        self._connection: Connection | None = None
        self._partitions = Partitions()
        self._registry = Registry()
        self._receipts_keep = 2 * settings.receive_maximum
        self._number = 0
        self._snapshot_at = 0.0
        self._has_columnstore = False
        self._outage = log.OutageLog(_log, "database")
        self._has_owned = False
        self.has_history = False  # whether a worker of this name has worked before
        self.stopping = threading.Event()
        self.state = self._fresh_state()

    @property
    def is_database_up(self) -> bool:
        return not self._outage.failing

    def _fresh_state(self) -> State:
        return State(Engine(self._rules), Receipts(self._receipts_keep), self._watermarks)

    # --- connection and recovery ---

    def recover(self) -> None:
        """Connect, own the shards, and rebuild what this worker knows. Retries until the database is there."""
        self._retry(self._open)
        self._retry(self._rebuild)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = self._connect()
        try:
            timeout_ms = int(self._settings.commit_statement_timeout_s * 1000)
            connection.execute(f"SET statement_timeout = {timeout_ms}")
            connection.execute(
                "SET synchronous_commit = on"
            )  # whatever the server's default is: the guarantee needs it
            self._own_shards(connection)
        except BaseException:
            connection.close()
            raise
        row = connection.execute(sql.text("has_columnstore")).fetchone()
        self._has_columnstore = bool(row and row[0])
        self._connection = connection
        self._partitions.forget()
        return connection

    def _own_shards(self, connection: Connection) -> None:
        """Take the locks of our shards. The server may still believe in the connection that held them last, a predecessor's
        or our own, until its probes have failed; so a taken shard is worth some patience before it is an error."""
        connection.execute(_PROBES)
        patience_s = _PATIENCE_AGAIN_S if self._has_owned else _PATIENCE_S
        deadline = time.monotonic() + patience_s
        for shard in parse_shards(self._settings.shards):
            while True:
                row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_SHARD_LOCK, shard)).fetchone()
                if row and row[0]:
                    break
                if time.monotonic() > deadline:
                    raise ShardTakenError(f"shard {shard} of {SHARDS} is owned by another ingest worker")
                if self.stopping.wait(_PATIENCE_STEP_S):
                    raise StoppedError("stopped while another connection owns our shards")
        self._has_owned = True

    def _rebuild(self) -> None:
        """The state as the database has it: commit number, series, receipts, engine."""
        connection = self._open()
        worker = {"worker": self._settings.worker}
        arm(connection, self._rules)
        row = connection.execute(sql.text("commit_number"), worker).fetchone()
        self._number = int(str(row[0])) if row else 0
        self.has_history = self._number > 0
        state = self._fresh_state()
        state.receipts.load(_bytes(block) for (block,) in connection.execute(sql.text("receipts"), worker))
        row = connection.execute(sql.text("broker_counter")).fetchone()
        state.broker_dropped = int(str(row[0])) if row else None
        series = self._registry.load(connection)
        state.engine.bind(series)
        self.state = state
        row = connection.execute(sql.text("snapshot_load"), worker).fetchone()
        if row is not None:
            state.engine.restore(_bytes(row[0]))
        found, reread = self._catch_up(connection, state.engine, series)
        commit = Commit(self._number + 1, SeriesBatch.empty(), transitions=found, snapshot=state.engine.snapshot())
        apply(connection, commit, self._target())
        self._number += 1
        self._snapshot_at = time.monotonic()
        _log.info("recovered", series=len(series), reread=reread, transitions=len(found), commit=self._number)

    def _catch_up(
        self, connection: Connection, engine: Engine, series: Sequence[SeriesInfo]
    ) -> tuple[list[Transition], int]:
        """Feed the engine what was stored after its snapshot; of series the snapshot does not know, what is recent."""
        shards = parse_shards(self._settings.shards)
        known, tips = engine.tips()
        tip_of = {sid: tip for sid, tip in zip(known.tolist(), tips.tolist(), strict=True) if tip > 0}
        ours = [info.id for info in series if shard_of(info.source) in shards]
        behind = {sid: _UNIX + dt.timedelta(microseconds=tip_of[sid]) for sid in ours if sid in tip_of}
        floor = dt.datetime.now(dt.UTC) - _RECENT
        transitions: list[Transition] = []
        reread = 0
        for name, parameters in (
            ("readings_since", {"series": list(behind), "tips": list(behind.values())}),
            ("readings_recent", {"series": [sid for sid in ours if sid not in tip_of], "floor": floor}),
        ):
            for batch in _blocks(connection, name, parameters):
                transitions += engine.feed(batch).transitions
                reread += len(batch)
        return transitions, reread

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
        if isinstance(parcel, RedriveParcel):  # the letter stays what it is
            return [self._process([parcel.failed(Reject("refused-by-database", "row", error))])]
        rows = self._rows(parcel)
        refused = self._refused(rows, np.arange(len(rows)))
        if not refused:
            raise CitynetError(f"the database refuses a message for another reason than its readings: {error}")
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
        return self.process([reopen(letter, content_type, now_us) for letter in letters])

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
        missing = self._registry.missing(names_of(parcels))
        if missing:
            self.state.engine.bind(self._registry.add(connection, missing))

    def _store(self, commit: Commit) -> None:
        if time.monotonic() - self._snapshot_at > self._settings.snapshot_s:
            commit.snapshot = self.state.engine.snapshot()
        self._retry(lambda: self._try(commit))
        self._number = commit.number
        if commit.snapshot is not None:
            self._snapshot_at = time.monotonic()

    def _try(self, commit: Commit) -> None:
        connection = self._open()
        row = connection.execute(
            "SELECT number FROM ingest_commit WHERE worker = %s", (self._settings.worker,)
        ).fetchone()
        if row is not None and row[0] == commit.number:
            return  # the connection was lost during COMMIT, and the commit had gone through
        self._partitions.ensure(connection, days_of(commit.rows))
        try:
            apply(connection, commit, self._target())
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise _RefusedError(str(error).splitlines()[0]) from None

    def _target(self) -> Target:
        return Target(self._settings.worker, self._rules, self._receipts_keep, self._has_columnstore)

    def flush(self) -> None:
        """At a graceful stop: keep the engine's state, so that the next start has nothing to re-read."""
        commit = Commit(self._number + 1, SeriesBatch.empty(), snapshot=self.state.engine.snapshot())
        try:
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

    def _retry(self, action: Callable[[], T]) -> T:
        """Do it; on connection-class errors again, with backoff, until it works or the worker stops."""
        pause = 0.05
        while True:
            try:
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
            self._connection.close()
            self._connection = None


def _blocks(connection: Connection, name: str, parameters: dict[str, object]) -> Iterator[SeriesBatch]:
    """Rows of a statement that gives readings by series and time, in blocks of bounded memory."""
    if not parameters["series"]:
        return
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{_RECOVER_TIMEOUT}'")
        with connection.cursor(name="citynet_recovery", binary=True) as cursor:
            cursor.execute(sql.text(name), parameters)
            while rows := cursor.fetchmany(_RECOVER_ROWS):
                series, time_us, value, quality = zip(*rows, strict=True)
                yield SeriesBatch(
                    np.array(series, np.int32),
                    np.array(time_us, np.int64),
                    np.array(value, np.float64),
                    np.array(quality, np.uint8),
                )


def _bytes(value: object) -> bytes:
    """A bytea column."""
    assert isinstance(value, bytes | memoryview)  # noqa: S101
    return bytes(value)


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
