"""The gateway, or ingest, with one thing broken on purpose, to prove that the harness would notice.

``python -m tests.faults.mutants NAME <citynet arguments…>`` breaks that one thing and runs the command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

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
        accept(self, item)

    Gateway._accept = broken  # type: ignore[method-assign]


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
    import threading
    from collections.abc import Sequence

    from citynet_ingest.commit import Answers
    from citynet_ingest.committer import Committer
    from citynet_ingest.parcel import Parcel
    from citynet_ingest.plan import Planner
    from citynet_ingest.worker import Worker

    workers: list[Worker] = []
    start = Worker.run

    async def run_known(self: Worker) -> None:
        workers.append(self)
        await start(self)

    def broken(self: Committer, parcels: Sequence[Parcel]) -> Answers:
        self._retry(lambda: self._prepare(parcels))
        commit, answers = Planner(self.state, self._registry, self._number + 1, 1_000).plan(parcels)
        said = threading.Event()

        def say() -> None:
            workers[0]._answer([answers])
            said.set()

        workers[0]._call(say)
        said.wait()
        if not commit.is_empty():
            self._store(commit)
        return Answers()

    Worker.run = run_known  # type: ignore[method-assign]
    Committer._process = broken  # type: ignore[method-assign]


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
