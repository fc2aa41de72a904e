"""The writer: commits that are planned become durable here, one at a time and in order, on a thread of its own.

While it waits for the database the next commit can be planned; that one waits until this one is settled. What may be answered
is told by the writer itself, right after COMMIT, so nobody's answer waits for somebody's planning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg

from citynet_ingest import metrics, report
from citynet_ingest.commit import Answers, Commit
from citynet_ingest.copybody import days_of
from citynet_ingest.link import Link
from citynet_ingest.ownership import last_commit
from citynet_ingest.parcel import Parcel
from citynet_ingest.store.rollups import days_of_partials
from citynet_ingest.store.transaction import Connection, Target, apply
from citynet_rules.spec import RuleSet

Tell = Callable[[list[Answers]], None]  # may be called on the writer's thread


class RefusedError(Exception):
    """The database refuses the data of a commit."""


def tell_nobody(_: list[Answers]) -> None:
    """Nobody waits for this commit."""


@dataclass(slots=True)
class Planned:
    """A commit with the parcels it was planned from; `tell` is called with `answers` once it is durable."""

    commit: Commit
    answers: Answers = field(default_factory=Answers)
    parcels: Sequence[Parcel] = ()
    tell: Tell = tell_nobody


class Writer:
    """Writes commits under a claim. `on_busy` hears when a commit is on its way, and when no more (on the writer's thread)."""

    def __init__(
        self, link: Link, worker: str, rules: RuleSet, receipts_keep: int, on_busy: Callable[[bool], None]
    ) -> None:
        self._link = link
        self._worker = worker
        self.rules = rules  # as they run; changed, as `claim` is, only while nothing is in flight
        self._receipts_keep = receipts_keep
        self._on_busy = on_busy
        self._thread = ThreadPoolExecutor(1, "writer")
        self._flight: tuple[Planned, Future[None]] | None = None
        self.claim = 0

    def target(self) -> Target:
        """Where commits go, as things stand."""
        return Target(self._worker, self.claim, self.rules, self._receipts_keep, self._link.has_columnstore)

    @property
    def is_busy(self) -> bool:
        return self._flight is not None and not self._flight[1].done()

    def hand(self, planned: Planned) -> None:
        """Have a commit written. The one before it must be settled."""
        assert self._flight is None  # noqa: S101
        self._on_busy(True)
        future = self._thread.submit(self._fly, planned)
        self._flight = (planned, future)
        future.add_done_callback(lambda _: self._on_busy(False))

    def settle(self) -> tuple[Planned, RefusedError] | None:
        """Wait until nothing is in flight; the commit that was refused, if it was.

        Raises:
            FencedError, ShardTakenError, StoppedError: the writer cannot go on.
        """
        if self._flight is None:
            return None
        (planned, future), self._flight = self._flight, None
        try:
            future.result()
        except RefusedError as error:
            return planned, error
        return None

    def close(self) -> None:
        """Wait for what is under way, whatever becomes of it."""
        self._thread.shutdown()

    def _fly(self, planned: Planned) -> None:
        self.write(planned.commit)
        planned.tell([planned.answers])

    def write(self, commit: Commit) -> None:
        """Make a commit durable: try until the database takes or refuses it. On the writer's thread, or with nothing in flight.

        Raises:
            RefusedError: for its data. FencedError: somebody else has our lanes. StoppedError: the worker stops.
        """
        started = time.perf_counter()
        is_again = False

        def attempt() -> None:
            nonlocal is_again
            was_tried, is_again = is_again, True
            self._try(commit, was_tried=was_tried)

        self._link.retry(attempt)
        metrics.STORE_S.observe(time.perf_counter() - started)
        report.committed(commit)

    def write_once(self, commit: Commit) -> None:
        """One try. psycopg.Error: it failed, and perhaps it went through."""
        self._try(commit, was_tried=False)

    def _try(self, commit: Commit, *, was_tried: bool) -> None:
        connection = self._link.open()
        # Only what was tried before can have gone through. Whether the claim is still ours the commit's own step asks.
        if was_tried and last_commit(connection, self.claim) == commit.number:
            return  # the connection was lost during COMMIT
        try:
            self._apply(connection, commit)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise RefusedError(str(error).splitlines()[0]) from None

    def _apply(self, connection: Connection, commit: Commit) -> None:
        """Once more where a partition is missing that we knew: retention has dropped it, and a late reading is of its day."""
        partitions, days = self._link.partitions, days_of(commit.rows) + days_of_partials(commit.partials)
        partitions.ensure(connection, days)
        try:
            apply(connection, commit, self.target())
        except psycopg.errors.CheckViolation:
            partitions.forget()
            partitions.ensure(connection, days)
            apply(connection, commit, self.target())
