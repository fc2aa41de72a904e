"""Which messages are settled: a watermark and what lies beyond it. Pure bookkeeping."""

from __future__ import annotations


class Ledger:
    """Messages are numbered from 1 and settled (acknowledged or given up) in about that order.

    Memory is bounded by how far the settled ones run ahead of the first open one, which the devices' buffers
    bound.
    """

    def __init__(self) -> None:
        self.upto = 0
        self.acked = 0
        self.lost = 0
        self._beyond: set[int] = set()
        self._fresh: list[int] = []
        self._told = 0

    def acknowledge(self, number: int) -> None:
        """The broker has message `number`."""
        self.acked += 1
        self._fresh.append(number)
        self._settle(number)

    def give_up(self, number: int) -> None:
        """Message `number` was never handed over and never will be."""
        self.lost += 1
        self._settle(number)

    def _settle(self, number: int) -> None:
        self._beyond.add(number)
        while self.upto + 1 in self._beyond:
            self.upto += 1
            self._beyond.remove(self.upto)

    def news(self) -> tuple[int, list[int]] | None:
        """The watermark, and what was acknowledged beyond it since the last call; None if nothing changed."""
        beyond = sorted(number for number in self._fresh if number > self.upto)
        if self.upto == self._told and not beyond:
            return None
        self._fresh, self._told = [], self.upto
        return self.upto, beyond
