"""The gateway with one thing broken on purpose, to prove that the harness would notice.

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
