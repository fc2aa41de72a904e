"""Kernels made of a scalar machine: step all series at once while they are quiet, walk the few that are not.

A kind that is stepped has a `Machine` a rule: `step` takes one reading and is the definition (the oracle). A kernel
must come to the same states and events faster. `RankKernel` takes the first reading of every series at once, then the
second of every series, and so on, as long as nothing can change but a few columns of state (`glide`); a pair that may
do more keeps its old state and is walked with `step` from there. Cost: about 15 numpy operations a rank for the glide,
one to three µs a reading for a walk. A batch with few readings a rank (one series of a replay) is walked as a whole:
numpy would only add its overhead.

A glide uses + − × ÷ √ and comparisons only: IEEE 754 gives them the same result one by one and in a column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.kinds.kind import Pairs, Progress, Rows, Segments
from citynet_rules.transition import Change, Event

READINGS_A_RANK_MIN = 24.0
"""Below, walking is cheaper than a rank's numpy calls."""

S = TypeVar("S")
Columns = dict[str, NDArray[Any]]


class Found(NamedTuple):
    """A change of one pair, as its machine tells it; fields as in `Event`."""

    change: Change
    level: int
    time_us: int
    raised_us: int
    value: float | None
    limit: float | None
    pending_since_us: int
    samples: tuple[tuple[int, float | None], ...]
    severity: float | None = None
    expected: tuple[float, float] | None = None
    reason: str = ""
    more: Mapping[str, Any] | None = None


class Machine(Protocol[S]):
    """One rule's scalar machine; `S` is the state of one series."""

    def initial(self) -> S:
        """Before the first reading."""
        ...

    def step(self, state: S, time_us: int, value: float, quality: int) -> tuple[S, list[Found]]:
        """Take one reading, later than all before it."""
        ...

    def pack(self, state: S) -> tuple[Any, ...]:
        """`state` as one row of the kind's dtype."""
        ...

    def unpack(self, row: tuple[Any, ...]) -> S:
        """The state that `pack` wrote; `row` is `numpy.void.item()`: a tuple whose sub-arrays are arrays."""
        ...


class Readings(NamedTuple):
    """The usable readings of some segments: rows `start` to `stop` of each, which may be none."""

    start: I64
    stop: I64
    time_us: I64
    value: F64

    @classmethod
    def of(cls, segments: Segments) -> Readings:
        usable = segments.usable
        if usable is None:
            return cls(segments.start, segments.stop, segments.time_us, segments.value)
        kept = np.concatenate([[0], np.cumsum(usable)])
        return cls(kept[segments.start], kept[segments.stop], segments.time_us[usable], segments.value[usable])


class WalkKernel(ABC, Generic[S]):
    """Walks the pairs that `moved` names."""

    def __init__(self, machines: Sequence[Machine[S]], state: np.dtype[np.void]) -> None:
        self._machines = machines
        self._fresh: Rows = np.array([machine.pack(machine.initial()) for machine in machines], state)

    def fresh(self, rule: I32) -> Rows:
        return self._fresh[rule]

    def feed(self, pairs: Pairs, segments: Segments) -> list[Event]:
        pair, position = pairs.of(segments.slot)
        if not len(pair):
            return []
        moved = np.flatnonzero(self.moved(pairs, pair, segments, position))
        events: list[Event] = []
        for p, s in zip(pair[moved].tolist(), position[moved].tolist(), strict=True):
            events += self._walk(pairs, p, segments, s)
        return events

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """Most kinds change at readings only: without one, nobody knows the value."""
        return []

    @abstractmethod
    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        """Which of these pairs must be walked; the states of the others are brought forward here."""

    def flag_of(self, state: S) -> int:
        """Quality flags of a reading after which a pair is in `state`."""
        return 0

    def _walk(self, pairs: Pairs, pair: int, segments: Segments, position: int) -> list[Event]:
        rule, slot = int(pairs.rule[pair]), int(pairs.slot[pair])
        machine = self._machines[rule]
        state = machine.unpack(pairs.state[pair].item())
        rows = slice(int(segments.start[position]), int(segments.stop[position]))
        columns = (segments.time_us[rows], segments.value[rows], segments.quality[rows])
        events: list[Event] = []
        for row, (time_us, value, quality) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=rows.start
        ):
            state, found = machine.step(state, time_us, value, quality)
            if flag := self.flag_of(state):
                segments.flags[row] |= flag
            events += [Event(rule, slot, *change) for change in found]
        pairs.state[pair] = machine.pack(state)
        return events


class RankKernel(WalkKernel[S]):
    """Glides rank by rank over the usable readings. `columns` names the columns of state that a glide reads or sets,
    `settings` the kernel's attributes with an entry a rule that it reads: a glide gets either by pair."""

    columns: ClassVar[tuple[str, ...]]
    settings: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        """Take one usable reading of each pair; set `columns` in place. True where the pair must be walked after all (its
        columns do not matter then)."""

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        readings = Readings.of(segments)
        count = (readings.stop - readings.start)[position]
        ranks = int(count.max())
        if int(count.sum()) < READINGS_A_RANK_MIN * ranks:
            return count > 0
        by = np.argsort(-count, kind="stable")  # the pairs that have a k-th reading are the first ones
        rule, state = pairs.rule[pair[by]], pairs.state
        columns = {name: state[name][pair[by]] for name in self.columns}
        known = columns | {name: getattr(self, name)[rule] for name in self.settings}
        first = readings.start[position][by]
        live = np.searchsorted(-count[by], -np.arange(ranks), side="left")
        moved = np.zeros(len(pair), np.bool_)
        with np.errstate(all="ignore"):  # what is not finite is walked
            for rank, n in enumerate(live.tolist()):
                row = first[:n] + rank
                some = {name: column[:n] for name, column in known.items()}
                moved[:n] |= self.glide(some, rule[:n], readings.time_us[row], readings.value[row])
        quiet = np.flatnonzero(~moved)
        for name, column in columns.items():
            state[name][pair[by[quiet]]] = column[quiet]
        result = np.empty(len(pair), np.bool_)
        result[by] = moved
        return result
