"""What a kind of rule is. A kind is one module that offers an object like `Kind`, and one line in the registry.

A kind owns the state of its (rule, series) pairs as one numpy structured row each; the engine keeps the rows, grows
them, writes them into snapshots and hands them back. The state dtype must hold `raised_us` (int64, `NONE_US` when no
alert is open) and `level` (int32, 0 when none), so that the engine can tell what is open without knowing the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64, I32, I64, U8, Bools
from citynet.quality import BAD, TEST
from citynet_rules.rule import Rule
from citynet_rules.transition import Event

Rows = NDArray[np.void]
UNUSABLE = BAD | TEST  # grade 2 and 3 both carry the bit of "bad"


@dataclass(frozen=True, slots=True)
class Segments:
    """The accepted readings of one feed, one segment a series, event time strictly rising inside a segment.

    Per segment: `slot` int64 (row of the series), `start` and `stop` int64 (rows; no segment is empty), `before_us`
    int64 and `before` float64 (time and value of the newest reading accepted before, `NONE_US` and NaN when there was
    none). Per row: `time_us` int64, `value` float64, `quality` uint8, `usable` bool or None when every row is usable:
    neither bad nor test nor a value that is no finite number; `flags` uint8, zeros at first, into which kinds put quality
    flags by |=. What a kind decides must not depend on them: they come back with the stored rows.
    """

    slot: I64
    start: I64
    stop: I64
    before_us: I64
    before: F64
    time_us: I64
    value: F64
    quality: U8
    usable: Bools | None
    flags: U8

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far time has come, one entry a slot: `tip_us` and `tip` (newest accepted reading), `source_us` (watermark of
    its source, `NONE_US` when unknown); `server_us` is the server's own watermark, and
    `servers_us` how far it goes for each (None: as far for all)."""

    tip_us: I64
    tip: F64
    source_us: I64
    server_us: int
    servers_us: I64 | None = None

    def server_at(self, slot: I64) -> I64 | int:
        """The server's watermark for each of these series; one number if it is the same for all."""
        return self.server_us if self.servers_us is None else self.servers_us[slot]


class Pairs:
    """The (rule, series) pairs of one kind and their state; append only.

    Columns, one entry a pair: `rule` int32 (counts within the kind), `slot` int64, `state` structured rows. A pair
    takes about 200 bytes.
    """

    def __init__(self, state: np.dtype[np.void]) -> None:
        self._count = 0
        self._rule: I32 = np.empty(0, np.int32)
        self._slot: I64 = np.empty(0, np.int64)
        self._state: Rows = np.empty(0, state)
        self._order: I64 | None = None
        self._first: I64 = np.empty(0, np.int64)
        self._pairs_of_slot: I64 = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._count

    @property
    def rule(self) -> I32:
        return self._rule[: self._count]

    @property
    def slot(self) -> I64:
        return self._slot[: self._count]

    @property
    def state(self) -> Rows:
        return self._state[: self._count]

    def add(self, rule: I32, slot: I64, state: Rows) -> None:
        """Append pairs; capacity doubles, so that many small additions stay cheap."""
        count = self._count + len(rule)
        if count > len(self._rule):
            capacity = max(count, 2 * len(self._rule))
            self._rule = _grown(self._rule, capacity)
            self._slot = _grown(self._slot, capacity)
            self._state = _grown(self._state, capacity)
        self._rule[self._count : count] = rule
        self._slot[self._count : count] = slot
        self._state[self._count : count] = state
        self._count = count
        self._order = None

    def of(self, slot: I64) -> tuple[I64, I64]:
        """The pairs that watch the series in `slot`: (pair, position in `slot`), both int64, by position.

        Costs as much as there are positions and hits, however many pairs exist.
        """
        if self._order is None:
            self._order = np.argsort(self.slot, kind="stable")
            self._pairs_of_slot = np.bincount(self.slot)
            self._first = np.cumsum(self._pairs_of_slot) - self._pairs_of_slot
        known = slot < len(self._first)
        safe = np.where(known, slot, 0) if len(self._first) else np.zeros(0, np.int64)
        if not len(safe):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        count = np.where(known, self._pairs_of_slot[safe], 0)
        position = np.repeat(np.arange(len(slot)), count)
        offset = np.cumsum(count) - count
        rank = np.arange(len(position)) - offset[position]
        return self._order[self._first[safe][position] + rank], position


class Kernel(Protocol):
    """The vectorised machine of one kind for a fixed list of rules; all state is in the pairs."""

    def fresh(self, rule: I32) -> Rows:
        """State rows of new pairs, one for each entry of `rule`."""
        ...

    def feed(self, pairs: Pairs, segments: Segments) -> list[Event]:
        """Take accepted readings; change the states, return what changed."""
        ...

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """Event time has come this far; change the states, return what changed."""
        ...


class Kind(Protocol):
    """A kind of rule.

    Attributes:
        name: the `kind` of a rule file.
        model: the rule's fields.
        state: dtype of one pair's state, little-endian.
        templates: default sentences, Chinese and English.
        learned: columns of the state that outlast a time in which a rule's conditions are not met.
    """

    name: str
    model: type[Rule]
    state: np.dtype[np.void]
    templates: tuple[str, str]
    learned: tuple[str, ...]

    def facts(self, rule: Any) -> dict[str, Any]:
        """What the kind adds to the evidence: at least hysteresis, on_delay_s and off_delay_s (None where it has
        none)."""
        ...

    def kernel(self, rules: Sequence[Any]) -> Kernel:
        """The machine for these rules of this kind."""
        ...


def usable_rows(value: F64, quality: U8) -> Bools | None:
    """Which readings may be judged by value; None when all may."""
    usable = ((quality & UNUSABLE) == 0) & np.isfinite(value)
    return None if usable.all() else usable


def _grown(column: NDArray[Any], capacity: int) -> NDArray[Any]:
    wider = np.empty(capacity, column.dtype)
    wider[: len(column)] = column
    return wider
