"""The committer: takes parcels, plans commits, hands them to the writer, survives the database.

While one commit is written the next is planned (ADR 17); whatever reads the database does so with nothing in flight.
Connection-class errors are retried without acknowledging anything. An error that the data causes throws the worker's state
away, and what was planned on it; the state is rebuilt from the database, and the refused commit's parcels are cut in halves
until the record that the database refuses stands alone and goes to dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import psycopg

from citynet.batch import I64, SeriesBatch
from citynet.errors import CitynetError
from citynet.formats import Reject
from citynet.runtime import log
from citynet_ingest import checkpoint, metrics, report
from citynet_ingest.commit import Answers, Commit
from citynet_ingest.copybody import days_of
from citynet_ingest.isolation import condemned, refused_rows
from citynet_ingest.lanes import lane_of
from citynet_ingest.lateness import bounds_of
from citynet_ingest.letter import Letter, reopen
from citynet_ingest.link import AWAY, Link
from citynet_ingest.ownership import as_bytes, claim, formers, last_commit
from citynet_ingest.parcel import BatchParcel, DirectParcel, Parcel, RedriveParcel
from citynet_ingest.plan import Planner
from citynet_ingest.rearm import Offer, successor
from citynet_ingest.recovery import revive
from citynet_ingest.registry import Registry
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.sources import Sources
from citynet_ingest.state import CursorKey, Receipts, State, cursor_keys, message_keys, names_of
from citynet_ingest.store import redrive, sql
from citynet_ingest.store.arming import arm, retire_outlived
from citynet_ingest.store.rollups import days_of_partials
from citynet_ingest.store.transaction import Connection, apply, copy_rows
from citynet_ingest.watermarks import Watermarks
from citynet_ingest.writer import Planned, RefusedError, Tell, Writer, tell_nobody
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.guard import RuleFailedError, without
from citynet_rules.joint.spread import Spread
from citynet_rules.spec import RuleSet

_RECOVER_PATIENCE_S = 900.0
_LOOK_S = 0.5  # at most so often dead letters are looked for that somebody asked for
_TRIM_S = 10.0  # so often message keys that are past their time are removed
_log = log.get("committer")


@dataclass(frozen=True, slots=True)
class Unknown:
    """What planning some parcels needs from the database."""

    cursors: list[CursorKey]
    keys: list[bytes]
    names: dict[str, str]

    def __bool__(self) -> bool:
        return bool(self.cursors or self.keys or self.names)


class Committer:
    """Owns the state of one worker. Lives on one thread, its writer on another; the connection is used by one of them at a
    time."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        settings: IngestSettings,
        rules: RuleSet,
        watermarks: Watermarks,
        on_busy: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._given = rules  # as the files have them
        self._failed: set[str] = set()  # of those the ones that threw on data
        self.offer = Offer()
        self._watermarks = watermarks
        self._link = Link(connect, settings)
        self._registry = Registry()
        self._receipts_keep = 2 * settings.receive_maximum
        self._writer = Writer(self._link, settings.worker, rules, self._receipts_keep, on_busy)
        self._sources = Sources(settings.sources)
        self._number = 0  # of the last commit planned
        self._snapshot_at = 0.0
        self._looked_at = 0.0
        self._looked_on = 0  # the connection of then
        self._trimmed_at = 0.0
        self._asked: list[Letter] = []
        self._spread: list[Spread] = []  # as it was told last
        self._unlearned: dict[str, tuple[int, int]] = {}  # likewise
        self.lanes_before: frozenset[int] | None = None  # those of ours that somebody had worked on before this start
        self.stopping = self._link.stopping
        self.watchdog = self._link.watchdog
        self.state = self._fresh_state()

    @property
    def is_database_up(self) -> bool:
        return self._link.is_up

    @property
    def rules(self) -> RuleSet:
        """The rules as they run."""
        return self._writer.rules

    def _fresh_state(self) -> State:
        receipts = {lane: Receipts(self._receipts_keep) for lane in self._link.lanes}
        engine = Engine(self._writer.rules, self._is_ours, bounds_of(self._settings.lateness))
        return State(engine, receipts, self._watermarks)

    def _is_ours(self, info: SeriesInfo) -> bool:
        """Whether the readings of a series come to this worker."""
        return lane_of(info.source) in self._link.lanes

    # --- recovery ---

    def recover(self) -> None:
        """Connect, own the shards, and rebuild what this worker knows. Retries until the database is there."""
        self._link.retry(self._link.open)
        while True:
            try:
                return self._link.retry(self._rebuild, _RECOVER_PATIENCE_S)
            except RuleFailedError as error:
                self._take_out(error)

    def _take_out(self, error: RuleFailedError) -> None:
        """Rules threw: from the next recovery on the others run without them."""
        self._failed.update(error.rules)
        for event in report.failed(error, self._settings.worker):
            self._note(event)

    def _note(self, event: dict[str, object]) -> None:
        """Something that operators must see, outside of any commit."""
        self._link.retry(lambda: self._link.open().execute(sql.text("system_event_add"), event))

    def _without(self, error: RuleFailedError) -> None:
        """Throw away the state in which rules threw; the commit before is settled first."""
        self._settle()
        self._take_out(error)
        self.recover()

    def close(self) -> None:
        """Let go of everything; what is in flight is waited for, but not tried again."""
        self.stopping.set()
        self._writer.close()
        self._link.close()

    def _rebuild(self) -> None:
        """The state as the database has it, our lanes' parts of what their former owners left, under a new claim.

        Reading it and taking the claim happen on the connection that holds the locks: nobody commits in between.
        """
        connection, lanes = self._link.open(), self._link.lanes
        self._arm(connection, self._given)
        state = self._fresh_state()
        series = self._registry.load(connection)
        before = formers(connection, lanes)
        found, reread = revive(connection, state, series, before, lanes)
        commit = Commit(1, SeriesBatch.empty(), transitions=found)
        checkpoint.take(state, commit, _now_us())
        self._spread = []
        self._look_for_spread(state, commit)
        self._link.partitions.forget()  # a commit that was refused may have missed one
        self._link.partitions.ensure(connection, days_of_partials(commit.partials))
        with connection.transaction():
            self._writer.claim = claim(connection, lanes, self._settings.worker)
            apply(connection, commit, self._writer.target())
        report.committed(commit)
        self._number = commit.number
        self.state = state
        if self.lanes_before is None:
            self.lanes_before = frozenset().union(*(former.held for former in before))
        self._snapshot_at = time.monotonic()
        _log.info("recovered", series=len(series), reread=reread, transitions=len(found), claim=self._writer.claim)

    def check(self) -> None:
        """Make sure that our lanes are still ours. FencedError, ShardTakenError: they are not."""
        self._settle()
        self._look_at_claim()

    def _look_at_claim(self) -> None:
        self._link.retry(lambda: last_commit(self._link.open(), self._writer.claim))

    # --- commits, one planned while the one before it is written ---

    def take(self, parcels: Sequence[Parcel], tell: Tell) -> None:
        """Plan a commit of these parcels and have it written; `tell` gets what may be answered, in order, once they are
        durable. Blocks while the commit before it is not."""
        planned = self._plan(parcels, tell)
        if self._settle():  # what it was planned on is gone
            planned = self._plan(parcels, tell)
        self._look_around()
        if planned.commit.is_empty():
            self._answer_empty(planned)
        else:
            self._writer.hand(planned)

    def reap(self) -> None:
        """Deal with what the writer has finished; does not wait."""
        if not self._writer.is_busy:
            self._settle()

    def _settle(self) -> bool:
        """Wait until nothing is in flight. Whether the state was thrown away: that commit was refused, and made piecemeal."""
        refused = self._writer.settle()
        if refused is None:
            return False
        planned, error = refused
        if not planned.parcels:
            raise CitynetError(f"the database refuses what the rules say, without any reading: {error}")
        _log.warning("commit-refused", error=str(error), parcels=len(planned.parcels))
        self.recover()
        planned.tell(self._isolate(planned.parcels, str(error)))
        return True

    def _plan(self, parcels: Sequence[Parcel], tell: Tell) -> Planned:
        while True:
            try:
                return self._plan_once(parcels, tell)
            except RuleFailedError as error:  # at least one rule fewer each time
                self._without(error)

    def _plan_once(self, parcels: Sequence[Parcel], tell: Tell) -> Planned:
        self._prepare(parcels)
        credit = max(1, self._settings.receive_maximum // 2)
        started = time.perf_counter()
        commit, answers = Planner(self.state, self._registry, self._number + 1, credit).plan(parcels)
        metrics.PLAN_S.observe(time.perf_counter() - started)
        if not commit.is_empty():
            self._line_up(commit)
        return Planned(commit, answers, parcels, tell)

    def _line_up(self, commit: Commit) -> None:
        """It takes its place in the order of commits, from time to time with the state as it is now."""
        self._number = commit.number
        if self._is_snapshot_due():
            checkpoint.take(self.state, commit, _now_us())
            self._look_for_spread(self.state, commit)
            self._unlearned = report.health(self.state.engine, self._unlearned)
            self._snapshot_at = time.monotonic()

    def _look_for_spread(self, state: State, commit: Commit) -> None:
        """Let `commit` tell of rules that join series of other workers, where that has changed."""
        found = state.engine.spread()
        metrics.RULES_SPREAD.set(len({each.rule for each in found}))
        if found and found != self._spread:
            commit.events.append(report.spread(found, self._settings.worker))
        self._spread = found

    def _is_snapshot_due(self) -> bool:
        return time.monotonic() - self._snapshot_at > self._settings.snapshot_s

    def _answer_empty(self, planned: Planned) -> None:
        """Nothing to write; what is said may be of commits before it, so they are settled."""
        if planned.answers.acks:
            self._look_at_claim()  # nobody may be told of cursors that another worker has moved on
        planned.tell([planned.answers])

    def _prepare(self, parcels: Sequence[Parcel]) -> None:
        """Fetch what planning needs from the database, before any state moves, with nothing in flight that could change it."""
        unknown = self._unknown(parcels)
        if unknown and self._settle():
            unknown = self._unknown(parcels)
        self.state.keys.clear()
        if unknown:
            self._link.retry(lambda: self._fetch(unknown))

    def _unknown(self, parcels: Sequence[Parcel]) -> Unknown:
        cursors = sorted(cursor_keys(parcels) - self.state.cursors.keys())
        return Unknown(cursors, message_keys(parcels), self._registry.missing(names_of(parcels)))

    def _fetch(self, unknown: Unknown) -> None:
        connection = self._link.open()
        if unknown.cursors:
            gateways, streams, epochs = (list(column) for column in zip(*unknown.cursors, strict=True))
            found = connection.execute(
                sql.text("cursor_find"), {"gateways": gateways, "streams": streams, "epochs": epochs}
            )
            rows = {(str(g), str(s), int(str(e))): int(str(seq)) for g, s, e, seq in found.fetchall()}
            self.state.cursors.update({key: rows.get(key, 0) for key in unknown.cursors})
        if unknown.keys:
            known = connection.execute(sql.text("message_key_find"), {"digests": unknown.keys}).fetchall()
            self.state.keys.update((as_bytes(digest), as_bytes(body)) for digest, body in known)
        if unknown.names:
            self.state.engine.bind(self._registry.add(connection, unknown.names))

    # --- commits made on the spot ---

    def _process(self, parcels: Sequence[Parcel]) -> Answers:
        """One commit of these parcels. With nothing in flight. RefusedError: the state is of no use any more."""
        planned = self._plan(parcels, tell_nobody)
        if not planned.commit.is_empty():
            self._writer.write(planned.commit)
        elif planned.answers.acks:
            self._look_at_claim()
        return planned.answers

    def _halved(self, parcels: Sequence[Parcel]) -> list[Answers]:
        """Commit parcels, and if they are refused their halves."""
        try:
            return [self._process(parcels)]
        except RefusedError as error:
            _log.warning("commit-refused", error=str(error), parcels=len(parcels))
            self.recover()
            return self._isolate(parcels, str(error))

    def _isolate(self, parcels: Sequence[Parcel], error: str) -> list[Answers]:
        """Commit the halves; a single record that is refused alone is dead-lettered."""
        if len(parcels) > 1:
            middle = len(parcels) // 2
            return self._halved(parcels[:middle]) + self._halved(parcels[middle:])
        parcel = parcels[0]
        if isinstance(
            parcel, RedriveParcel
        ):  # the letter stays what it is; another worker may have stored its key first
            return [self._process([parcel.failed(Reject("refused-by-database", "row", error))])]
        rows = self._rows(parcel)
        refused = refused_rows(
            np.arange(len(rows)), lambda picked: self._link.retry(lambda: self._is_accepted(rows, picked))
        )
        if not refused:  # another worker may have stored the same key first; it is found at the second try
            try:
                return [self._process([parcel])]
            except RefusedError:
                reason = f"the database refuses a message for another reason than its readings: {error}"
                raise CitynetError(reason) from None
        return [self._process([condemned(parcel, refused, error)])]

    def _rows(self, parcel: Parcel) -> SeriesBatch:
        """The readings of one parcel, in its own order."""
        self._prepare([parcel])
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

    def _is_accepted(self, rows: SeriesBatch, picked: I64) -> bool:
        """Tried in a transaction that is rolled back."""
        part = rows.picked(picked)
        connection = self._link.open()
        self._link.partitions.ensure(connection, days_of(part))
        try:
            with connection.transaction(force_rollback=True):
                copy_rows(connection, part, has_columnstore=False)
        except (psycopg.DataError, psycopg.IntegrityError):
            return False
        return True

    # --- what is due by the clock, and at the end ---

    def tick(self, now_us: int, *, is_drained: bool) -> None:
        """The clock moved: rules that wait for silence may fire."""
        self._watermarks.tick(now_us, is_drained=is_drained)
        try:
            transitions = self.state.engine.advance(self._watermarks.take())
        except RuleFailedError as error:
            self._without(error)
            return
        if transitions or self._is_snapshot_due():
            commit = Commit(self._number + 1, SeriesBatch.empty(), transitions=transitions)
            self._line_up(commit)
            if not self._settle():  # else the rebuilt state finds the same at the next tick
                self._writer.hand(Planned(commit))

    def rearm(self) -> None:
        """Take on the rules that were offered, with nothing in flight; where their files held mistakes, say so and go on."""
        rules, problems = self.offer.take()
        if rules is None and not problems:
            return
        self._settle()
        if problems:
            event = report.refused(problems, self._settings.worker)
            self._note(event)
        if rules is not None:
            self._link.retry(lambda: self._rearm(rules))
            self._snapshot_at = 0.0  # the next tick keeps it

    def _rearm(self, rules: RuleSet) -> None:
        connection = self._link.open()
        self._failed.clear()
        self._arm(connection, rules)
        self.state.engine = successor(self.state.engine, self._fresh_state().engine, self._registry.load(connection))

    def _arm(self, connection: Connection, rules: RuleSet) -> None:
        """What is not proved runs in shadow."""
        self._writer.rules = arm(connection, without(rules, self._failed), self._settings.worker, self._failed)
        self._given = rules
        report.armed(self._writer.rules)

    def redrive(self, now_us: int, tell: Tell) -> None:
        """Try again a few of the dead letters that somebody asked for, in a commit of their own.

        They are looked for here if nothing is in flight, else by `take`, between two commits.
        """
        if not self._writer.is_busy:
            self._settle()
            self._look_around()
        letters, self._asked = self._asked, []
        if letters:
            self._settle()
            content_type = self._settings.direct_content_type
            tell(self._halved([reopen(letter, content_type, self._sources, now_us) for letter in letters]))

    def _look_around(self) -> None:
        """What is looked for from time to time, with nothing in flight (a commit may be planned)."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_S:
            self._looked_at = now
            shards = parse_shards(self._settings.shards)
            self._asked = self._link.retry(lambda: redrive.asked(self._link.open(), shards))
            if self._looked_on != self._link.opened:  # it has the locks again; in between they were anybody's
                self._looked_on = self._link.opened
                self._look_at_claim()
        if now - self._trimmed_at > _TRIM_S:
            self._trimmed_at = now
            keep = {"keep_s": self._settings.message_key_s}
            self._link.retry(lambda: self._link.open().execute(sql.text("message_key_trim"), keep))
            self._link.retry(lambda: retire_outlived(self._link.open()))

    def flush(self) -> None:
        """At a graceful stop: keep the engine's state, so that the next start has nothing to re-read."""
        self._settle()
        commit = Commit(self._number + 1, SeriesBatch.empty())
        checkpoint.take(self.state, commit, _now_us())
        try:
            with self.watchdog.limit(self._settings.commit_timeout_s):
                self._writer.write_once(commit)
        except AWAY:
            return  # the database is away: the next start re-reads


def _now_us() -> int:
    return time.time_ns() // 1000
