"""Readings of several series in one order of event time, whatever order they arrive in.

An object has members, each a series (read or made by another join). A reading of a member waits until no member can still
have one at or before it; then it is released, ordered by time. How far that is, the object's frontier, is the lowest of its
members' promises:

- of a series that is read: the newest of its tip (what is not newer than it is late), the watermark of its source, and the
  server's watermark less `wait_us`: a member that is silent for longer than that by the server's clock is not waited for;
- of a series that is made: the frontier of its own object.

A reading at or before what was already promised for it (a backlog that breaks a watermark's promise) is passed over here;
one-series rules and the store take it as ever. So what is released depends on event times and watermarks only, not on how
the input was cut or which series came first.

Bounds: `WAITING_MAX` readings wait an object; beyond, the oldest are let go. `PAST_MAX` readings are kept a member that is
looked back at. Both are counted in `dropped` or documented; the laws hold within them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64, I32, I64, U8, Bools
from citynet_rules.kinds.kind import UNUSABLE, Pairs, Rows, Segments
from citynet_rules.transition import NONE_US

WAITING_MAX = 4096
PAST_MAX = 4096
_KEY_MAX = 1 << 62  # object and time as one number
_LINK = np.dtype([("object", "<i4")])


class Readings(NamedTuple):
    """Readings of members, one entry each: `object` and `role` int32, `time_us` int64, `value` float64, `quality`
    uint8 (bad and test only)."""

    object: I32
    role: I32
    time_us: I64
    value: F64
    quality: U8

    @classmethod
    def none(cls) -> Self:
        small: I32 = np.empty(0, np.int32)
        return cls(small, small, np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.uint8))

    def picked(self, rows: Any) -> Self:
        return type(self)(*(column[rows] for column in self))

    def plus(self, others: Sequence[Self]) -> Self:
        if not others:
            return self
        return type(self)(*(np.concatenate(columns) for columns in zip(self, *others, strict=True)))

    def ordered(self) -> Self:
        """By object, time, role."""
        return self.picked(np.lexsort((self.role, self.time_us, self.object)))


@dataclass(frozen=True, slots=True)
class Block:
    """Released readings by object, time and role. Per row: `first`, the first row of its object, `end`, the last row of its
    object and time; `instants` are the rows that are their own `end`."""

    rows: Readings
    first: I64
    end: I64
    instants: I64
    join: Join

    @classmethod
    def of(cls, rows: Readings, join: Join) -> Self:
        count = len(rows.object)
        fresh = np.ones(count, np.bool_)
        fresh[1:] = rows.object[1:] != rows.object[:-1]
        last = np.ones(count, np.bool_)
        last[:-1] = fresh[1:] | (rows.time_us[1:] != rows.time_us[:-1])
        instants = np.flatnonzero(last)
        begin = np.flatnonzero(fresh)
        first = np.repeat(begin, np.diff(begin, append=count))
        end = np.repeat(instants, np.diff(instants, prepend=-1))
        return cls(rows, first, end, instants, join)

    def latest(self, channel: int, mask: Bools, at: I64) -> tuple[I64, F64]:
        """(time, value) of the newest reading in `mask` up to each of the rows `at`, those of earlier blocks included;
        `NONE_US` where there is none. The channel remembers the newest for the next block; give every channel once a
        block."""
        rows, state = self.rows, self.join.state
        seen: I64 = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
        time_us, value = state["time_us"][:, channel], state["value"][:, channel]
        place, owner = seen[at], rows.object[at]
        known = place >= self.first[at]
        found = np.where(known, rows.time_us[place], time_us[owner]), np.where(known, rows.value[place], value[owner])
        newest = np.append(self.first[1:] != self.first[:-1], True) & (seen >= self.first)
        time_us[rows.object[newest]] = rows.time_us[seen[newest]]
        value[rows.object[newest]] = rows.value[seen[newest]]
        return found


class Join:
    """Objects of one definition. `roles` members an object at most, `channels` remembered readings (see `Block.latest`);
    `past_us` says per role how far back it is looked; `as_is` roles take readings of any quality, the others only what
    is usable."""

    def __init__(
        self,
        roles: int,
        channels: int,
        wait_us: int,
        past_us: Sequence[int] = (),
        as_is: frozenset[int] = frozenset(),
        memory: Sequence[tuple[Any, ...]] = (),
        every_us: int = 0,
    ) -> None:
        """`every_us`: only the first reading of each such stretch of time is taken (0: all)."""
        self.wait_us = wait_us
        self.dropped = 0
        self._every_us = every_us
        self._past_us: I64 = np.array([*past_us, *[0] * (roles - len(past_us))], np.int64)
        self._as_is: Bools = np.array([role in as_is for role in range(roles)], np.bool_)
        self.layout = np.dtype(
            [
                ("frontier_us", "<i8"),
                ("tip_us", "<i8"),  # of the series that is made
                ("tip", "<f8"),
                ("time_us", "<i8", (channels,)),
                ("value", "<f8", (channels,)),
                *memory,
            ]
        )
        self.roles = roles
        self.anchor: list[int] = []
        self._state: Rows = np.empty(0, self.layout)
        self._slot: I64 = np.empty((0, roles), np.int64)  # −1: no member
        self._made: Bools = np.empty((0, roles), np.bool_)
        self._links = {made: Pairs(_LINK) for made in (False, True)}
        self.waiting = Readings.none()
        self.past = Readings.none()

    def __len__(self) -> int:
        return len(self.anchor)

    @property
    def state(self) -> Rows:
        return self._state[: len(self)]

    def fresh(self, count: int) -> Rows:
        """States of new objects."""
        state = np.zeros(count, self.layout)
        for name in ("frontier_us", "tip_us", "time_us"):
            state[name] = NONE_US
        state["tip"] = np.nan
        return state

    def add(self, anchor: int) -> int:
        """A new object, known by the id of one of its series in snapshots; returns its number."""
        number = len(self)
        if number == len(self._state):
            more = max(16, number)
            self._state = np.concatenate([self._state, self.fresh(more)])
            self._slot = np.concatenate([self._slot, np.full((more, self.roles), -1, np.int64)])
            self._made = np.concatenate([self._made, np.zeros((more, self.roles), np.bool_)])
        self.anchor.append(anchor)
        return number

    def link(self, number: int, role: int, slot: int, *, made: bool) -> None:
        """Make a series a member of an object."""
        self._slot[number, role] = slot
        self._made[number, role] = made
        state = np.array([(number,)], _LINK)
        self._links[made].add(np.array([role], np.int32), np.array([slot], np.int64), state)

    def take(self, segments: Segments, promised_us: I64, *, made: bool) -> I64:
        """Let readings wait; returns the objects that have members among the segments' series.

        Args:
            promised_us: int64, one entry a segment: what is at or before it is passed over.
        """
        links = self._links[made]
        link, position = links.of(segments.slot)
        if not len(link):
            return np.empty(0, np.int64)
        count = (segments.stop - segments.start)[position]
        of = np.repeat(np.arange(len(link)), count)
        row = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + segments.start[position][of]
        owner, role = links.state["object"][link].astype(np.int64), links.rule[link]
        kept = segments.time_us[row] > np.maximum(promised_us[position], self.state["frontier_us"][owner])[of]
        if segments.usable is not None:
            kept &= segments.usable[row] | self._as_is[role][of]
        if self._every_us:
            kept &= _firsts(segments, self._every_us)[row]
        of, row = of[kept], row[kept]
        # Of the quality what rules judge by: flags that rules set come back with the stored rows, and must change nothing.
        columns = (segments.time_us[row], segments.value[row], segments.quality[row] & UNUSABLE)
        self.waiting = self.waiting.plus([Readings(owner[of].astype(np.int32), role[of], *columns)])
        return np.unique(owner)

    def members(self, objects: I64) -> tuple[I64, Bools]:
        """Slots of the members of these objects (−1: none), and which are made ones."""
        return self._slot[objects], self._made[objects]

    def owners(self, slot: I64, *, made: bool) -> I64:
        """Objects that have one of these series as member."""
        links = self._links[made]
        link, _ = links.of(slot)
        return np.unique(links.state["object"][link].astype(np.int64))

    def release(self, objects: I64, frontier_us: I64) -> Block | None:
        """These objects have come this far: what waits up to there, in order. Frontiers never go back."""
        state = self.state
        state["frontier_us"][objects] = np.maximum(state["frontier_us"][objects], frontier_us)
        due = self.waiting.time_us <= state["frontier_us"][self.waiting.object]
        if not due.any():
            self._bound()
            return None
        block = self.waiting.picked(due).ordered()
        self.waiting = self.waiting.picked(~due)
        self._bound()
        return Block.of(block, self)

    def _bound(self) -> None:
        """Let the oldest go where more wait than may."""
        if len(self.waiting.object) <= WAITING_MAX:
            return
        count = np.bincount(self.waiting.object, minlength=len(self))
        if count.max() <= WAITING_MAX:
            return
        rows = self.waiting.ordered()
        rank_from_newest = np.cumsum(count)[rows.object] - 1 - np.arange(len(rows.object))
        kept = rank_from_newest < WAITING_MAX
        self.dropped += int(len(kept) - kept.sum())
        self.waiting = rows.picked(kept)

    def remember(self, block: Block) -> Readings:
        """Keep what of the block is looked back at. Returns all that may be looked at from this block on, of its objects, by
        object, role and time; call `forget` after the block."""
        rows = block.rows.picked(np.flatnonzero(self._past_us[block.rows.role] > 0))
        rows = rows.picked(np.lexsort((rows.time_us, rows.role, rows.object)))
        place = np.searchsorted(self._place(self.past), self._place(rows), side="right")
        columns: list[tuple[NDArray[Any], NDArray[Any]]] = list(zip(self.past, rows, strict=True))
        self.past = Readings(*(np.insert(old, place, new) for old, new in columns))
        touched = np.zeros(len(self), np.bool_)
        touched[block.rows.object] = True
        return self.past.picked(touched[self.past.object])

    def _place(self, rows: Readings) -> I64:
        """Object and role as one number. What is new of a member is newer than all that is kept of it."""
        return rows.object.astype(np.int64) * self.roles + rows.role

    def forget(self) -> None:
        """Keep what can still be looked at: what is newer than the frontier less the window, and the newest one before."""
        rows = self.past
        if not len(rows.object):
            return
        since_us = self.state["frontier_us"][rows.object] - self._past_us[rows.role]
        old = rows.time_us <= since_us
        ends = np.append((rows.object[1:] != rows.object[:-1]) | (rows.role[1:] != rows.role[:-1]), True)
        replaced = old & ~ends & np.append(old[1:], False)
        stop = np.flatnonzero(ends)
        count = np.diff(stop, prepend=-1)
        from_newest = np.repeat(stop, count) - np.arange(len(old))
        self.past = rows.picked(~replaced & (from_newest < PAST_MAX))


def _firsts(segments: Segments, every_us: int) -> Bools:
    """Which readings are the first of their series in their stretch of `every_us`."""
    stretch = segments.time_us // every_us
    first = np.ones(len(stretch), np.bool_)
    first[1:] = stretch[1:] != stretch[:-1]
    first[segments.start] = stretch[segments.start] != segments.before_us // every_us
    return first


def rank_up_to(rows: Readings, role: int, objects: I32, time_us: I64) -> tuple[I64, I64, I64]:
    """Where a past ends for each query, among the readings of `role` in `rows` (by object, role and time).

    Returns:
        Positions of the readings of the role; for each query how many of them are of an object before its own, and how
        many are of one before or of its own at or before `time_us`.
    """
    position = np.flatnonzero(rows.role == role)
    own, own_us = rows.object[position], rows.time_us[position]
    start: NDArray[np.int64] = np.searchsorted(own, objects, side="left").astype(np.int64)
    return position, start, _passed(own, own_us, objects, time_us)


def _passed(own: I32, own_us: I64, objects: I32, time_us: I64) -> I64:
    """For each query, how many of `own` (by object and time) are of an object before, or of its own and not later."""
    if not len(own):
        return np.zeros(len(objects), np.int64)
    oldest_us = int(own_us.min())
    span_us = int(own_us.max()) - oldest_us + 1
    if span_us * (int(max(own.max(), objects.max(initial=0))) + 1) >= _KEY_MAX:
        is_query = np.repeat([False, True], [len(own), len(objects)])
        order = np.lexsort((is_query, np.concatenate([own_us, time_us]), np.concatenate([own, objects])))
        passed = np.empty(len(order), np.int64)
        passed[order] = np.cumsum(~is_query[order])
        return passed[len(own) :]
    key = own * np.int64(span_us) + (own_us - oldest_us)
    asked = objects * np.int64(span_us) + np.clip(time_us - oldest_us, -1, span_us - 1)
    found: I64 = np.searchsorted(key, asked, side="right").astype(np.int64)
    return found
