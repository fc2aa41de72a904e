"""The gateway, or ingest, with one thing broken on purpose, to prove that the harness would notice.

``python -m tests.faults.mutants NAME <citynet arguments…>`` breaks that one thing and runs the command.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a gateway's mutant must not load the server
    from citynet_ingest.commit import Answers, Commit
    from citynet_ingest.parcel import Parcel
    from citynet_ingest.store.transaction import Connection, Target
    from citynet_ingest.worker import Worker

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a mutation under the name that the command line takes."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[name] = function
        return function

    return register


@mutant("answer-before-sync")
def answer_before_sync() -> None:
    """The source is answered as soon as its message is in memory."""
    from citynet_gateway.service import Gateway, _Unanswered

    accept = Gateway._accept

    def broken(self: Gateway, item: _Unanswered) -> None:
        driver = item.offer.driver
        if driver is not None:
            driver.answer([item.offer])
            time.sleep(0.001)  # a wrong answer that is still in the gateway when it dies harms nobody
        accept(self, item)

    Gateway._accept = broken  # type: ignore[method-assign]


@mutant("sync-hangs")
def sync_hangs() -> None:
    """The card does not come back from a sync."""
    from citynet.runtime import log
    from citynet_gateway.spool import SegmentSpool

    def broken(_self: SegmentSpool, _stream: object) -> int:
        log.get(__name__).warning("sync-hangs")
        time.sleep(3600)
        return 0

    SegmentSpool.sync = broken  # type: ignore[method-assign]


@mutant("reuse-epoch")
def reuse_epoch() -> None:
    """Every opening of the spool counts from 1 again in the same epoch."""
    from citynet_gateway import service
    from citynet_gateway.spool import store

    service.new_epoch = lambda: 4711
    store.check_epoch = lambda _epoch, _known: None  # the spool itself would refuse


@mutant("puback-before-commit")
def puback_before_commit() -> None:
    """The broker gets its PUBACK, and the gateway its acknowledgement, before the transaction is made."""
    from citynet_ingest.commit import Answers
    from citynet_ingest.worker import Worker
    from citynet_ingest.writer import Planned, Writer, tell_nobody

    workers: list[Worker] = []
    start, fly = Worker.run, Writer._fly

    async def run_known(self: Worker) -> None:
        workers.append(self)
        await start(self)

    def broken(self: Writer, planned: Planned) -> None:
        _say(workers[0], planned.answers)
        planned.answers, tell = Answers(), planned.tell
        planned.tell = tell_nobody
        fly(self, planned)
        tell([Answers()])  # what its messages weigh is let go of

    Worker.run = run_known  # type: ignore[method-assign]
    Writer._fly = broken  # type: ignore[method-assign]


@mutant("acknowledge-before-commit")
def acknowledge_before_commit() -> None:
    """The broker hears nothing before COMMIT; the gateway has its acknowledgement already."""
    from dataclasses import replace

    from citynet_ingest.plan import Planner
    from citynet_ingest.worker import Worker

    workers: list[Worker] = []
    start, plan = Worker.run, Planner.plan

    async def run_known(self: Worker) -> None:
        workers.append(self)
        await start(self)

    def broken(self: Planner, parcels: Sequence[Parcel]) -> tuple[Commit, Answers]:
        commit, answers = plan(self, parcels)
        _say(workers[0], replace(answers, pubacks={}))
        return commit, answers

    Worker.run = run_known  # type: ignore[method-assign]
    Planner.plan = broken  # type: ignore[method-assign]


def _say(worker: Worker, answers: Answers) -> None:
    """Give these answers, and wait until the broker has them: a wrong one that dies with us harms nobody."""
    sessions, said = [inlet.session for inlet in worker._inlets.values()], threading.Event()

    def say() -> None:
        worker._answer([answers], time.perf_counter())
        look()

    def look() -> None:
        if any(session._outbox or session._outstanding for session in sessions):
            asyncio.get_running_loop().call_later(0.001, look)
        else:
            said.set()

    worker._call(say)
    said.wait()


@mutant("skip-the-cursor-step")
def skip_the_cursor_step() -> None:
    """Readings are committed, the cursors stay where they are."""
    from citynet_ingest.store import transaction

    transaction._cursors = lambda _connection, _commit: None


@mutant("cursor-in-another-transaction")
def cursor_in_another_transaction() -> None:
    """The cursors move in a transaction of their own, right after that of the readings."""
    from citynet_ingest.store import transaction

    cursors = transaction._cursors
    transaction._cursors = lambda _connection, _commit: None
    _after_commit(lambda connection, commit, _target: cursors(connection, commit))


@mutant("receipts-in-another-transaction")
def receipts_in_another_transaction() -> None:
    """What recognises redelivered messages of direct devices is stored right after what they said."""
    from citynet_ingest.store import sql

    add = sql.text("receipt_add")
    text = sql.text
    sql.text = lambda name: "SELECT %(lanes)s::integer[], %(hashes)s::bytea[]" if name == "receipt_add" else text(name)

    def store(connection: Connection, commit: Commit, _target: Target) -> None:
        if commit.digests:
            hashes = [b"".join(digests) for digests in commit.digests.values()]
            connection.execute(add, {"lanes": list(commit.digests), "hashes": hashes})

    _after_commit(store)


@mutant("snapshot-in-another-transaction")
def snapshot_in_another_transaction() -> None:
    """The state of the rules engine is stored right before the readings that made it."""
    from citynet_ingest import writer
    from citynet_ingest.store import sql

    apply = writer.apply  # type: ignore[attr-defined]

    def broken(connection: Connection, commit: Commit, target: Target) -> None:
        if commit.snapshot is not None:
            connection.execute(sql.text("snapshot_save"), {"claim": target.claim, "state": commit.snapshot})
        apply(connection, commit, target)

    writer.apply = broken  # type: ignore[attr-defined]


@mutant("machine-clock")
def machine_clock() -> None:
    """No mutation of the program but of the machine under a gateway: its clock, its boot and whether the kernel calls it
    synchronised are those of the JSON in the file CITYNET_TEST_MACHINE."""
    import json

    from citynet_gateway import timekeeper

    wall_us, boot_us, path = timekeeper.wall_us, timekeeper.boot_us, Path(os.environ["CITYNET_TEST_MACHINE"])

    look = timekeeper.look

    def machine() -> dict[str, int]:
        found: dict[str, int] = json.loads(path.read_text())
        return found

    state = machine()

    def look_at_one() -> timekeeper.Seen:
        nonlocal state
        state = machine()  # a test replaces the file at any moment: of one look all is of one state
        return look()

    timekeeper.look = look_at_one
    timekeeper.wall_us = lambda: wall_us() + state["error_us"]
    timekeeper.boot_us = lambda: boot_us() - state["booted_us"]
    timekeeper.is_synced = lambda: bool(state["synced"])
    timekeeper.boot_id = lambda: f"boot-{state['boot']}"  # type: ignore[assignment]
    timekeeper.LOOK_S = 0.05


@mutant("stepping-clock")
def stepping_clock() -> None:
    """No mutation of the program but of its clock: ingest's runs ahead by the seconds in the file CITYNET_TEST_CLOCK."""
    from citynet_ingest import inlet, worker

    clock, offset = inlet.now_us, Path(os.environ["CITYNET_TEST_CLOCK"])
    inlet.now_us = worker.now_us = lambda: clock() + int(offset.read_text()) * 1_000_000


@mutant("throwing-rule")
def throwing_rule() -> None:
    """The rule "bad" of kind `limit` throws when any series says 13."""
    from citynet_rules.kinds import KINDS

    kind = KINDS["limit"]
    made = kind.kernel

    def broken(rules: Sequence[Any]) -> Any:
        kernel = made(rules)
        feed = kernel.feed

        def throw(pairs: Any, segments: Any) -> Any:
            if 13.0 in segments.value and any(rule.id == "bad" for rule in rules):
                raise ZeroDivisionError("thirteen")
            return feed(pairs, segments)

        kernel.feed = throw  # type: ignore[method-assign]
        return kernel

    kind.kernel = broken  # type: ignore[method-assign]


def _after_commit(action: Callable[[Connection, Commit, Target], None]) -> None:
    """Have something done after the transaction that should have been part of it."""
    from citynet_ingest import writer

    apply = writer.apply  # type: ignore[attr-defined]

    def broken(connection: Connection, commit: Commit, target: Target) -> None:
        apply(connection, commit, target)
        action(connection, commit, target)

    writer.apply = broken  # type: ignore[attr-defined]


def run(arguments: list[str]) -> None:
    """Break what the first argument names, then be ``citynet`` with the rest."""
    name = arguments[0] if arguments else ""
    if name not in MUTANTS:
        sys.exit(f"usage: python -m tests.faults.mutants NAME ARGUMENTS…, NAME one of {', '.join(sorted(MUTANTS))}")
    MUTANTS[name]()
    from citynet.cli import main

    sys.argv = ["citynet", *arguments[1:]]
    main()


if __name__ == "__main__":
    run(sys.argv[1:])
