"""All rules of one kind and mode in an engine: their pairs, their kernel, and states that wait for their series to be bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64, I32, I64, Bools
from citynet.errors import CitynetError
from citynet_rules import sparse
from citynet_rules.kinds.kind import Kind, Pairs, Rows
from citynet_rules.rule import Rule
from citynet_rules.snapshot import KindTable, Part
from citynet_rules.transition import NONE_US, Event, standing


class Group:
    """One kind's rules of one mode and what is known of each (rule, series) pair."""

    def __init__(self, kind: Kind, rules: Sequence[Rule], name: str = "") -> None:
        self.kind = kind
        self.name = name or kind.name  # in snapshots
        self.rules = list(rules)
        self.is_shadow = rules[0].mode == "shadow"
        self.facts = [standing(rule, kind.facts(rule)) for rule in rules]
        self.kernel = kind.kernel(rules)
        self.pairs = Pairs(kind.state)
        self._by_metric: dict[str, list[int]] = {}
        for number, rule in enumerate(rules):
            self._by_metric.setdefault(rule.metric, []).append(number)
        self._waiting_keys: I64 = np.empty(0, np.int64)
        self._waiting_state: Rows = np.empty(0, kind.state)

    @property
    def metrics(self) -> Set[str]:
        """The metrics of its rules."""
        return self._by_metric.keys()

    def watching(self, device: str, metric: str) -> list[int]:
        """Numbers of the rules that select a series."""
        return [number for number in self._by_metric.get(metric, ()) if self.rules[number].selects(device, metric)]

    def add(self, rule: I32, slot: I64, series: I32) -> None:
        """Add pairs: with the state a snapshot kept for them, else fresh."""
        state = self.kernel.fresh(rule)
        self._adopt(state, _keys(rule, series))
        self.pairs.add(rule, slot, state)

    def release(self, slot: I64, time_us: I64, value: F64) -> list[Event]:
        """The conditions of these series' rules are no longer met, at a reading each: clear what is open, forget what is under
        way, keep what was learned."""
        pair, position = self.pairs.of(slot)
        before = self.pairs.state[pair]
        events = []
        for k in np.flatnonzero(before["raised_us"] != NONE_US).tolist():
            raised_us, level, at = int(before["raised_us"][k]), int(before["level"][k]), int(position[k])
            now_us = int(time_us[at])
            last = float(value[at]) if isfinite(value[at]) else None
            rule, of = int(self.pairs.rule[pair[k]]), int(slot[at])
            shown = ((now_us, last),)
            events.append(
                Event(
                    rule,
                    of,
                    "clear",
                    level,
                    max(now_us, raised_us),
                    raised_us,
                    None,
                    None,
                    now_us,
                    shown,
                    reason="when",
                )
            )
        after = self.kernel.fresh(self.pairs.rule[pair])
        for name in self.kind.learned:
            after[name] = before[name]
        self.pairs.state[pair] = after
        return events

    def drop_waiting(self, series: I32) -> None:
        """These series are bound now: what still waits for them belongs to rules that no longer select them."""
        if len(self._waiting_keys):
            ids = (self._waiting_keys & 0xFFFF_FFFF).astype(np.uint32).view(np.int32)
            self._keep(~np.isin(ids, series))

    def save(self, ids: I32) -> KindTable:
        """Every pair's state; `ids` are the series ids by slot."""
        keys = np.concatenate([_keys(self.pairs.rule, ids[self.pairs.slot]), self._waiting_keys])
        fresh = np.concatenate(
            [
                self._is_fresh(self.pairs.rule, self.pairs.state),
                self._is_fresh(_rule_of(self._waiting_keys), self._waiting_state),
            ]
        )
        order = np.argsort(keys, kind="stable")
        rule = _rule_of(keys[order]).astype("<i4")
        series = (keys[order] & 0xFFFF_FFFF).astype("<u4")
        moved = order[~fresh[order]]
        return KindTable(
            kind=self.name,
            layout=self._layout(),
            rules=[r.fingerprint for r in self.rules],
            rule=rule.tobytes(),
            series=series.tobytes(),
            state=sparse.pack(lambda piece: self._rows(moved[piece]), len(moved), self.kind.state.itemsize),
            fresh=fresh[order].tobytes() if fresh.any() else b"",
            is_sparse=True,
        )

    def load(self, tables: Sequence[tuple[Part, KindTable]], ids: I32) -> None:
        """Replace all states by what the parts take of their tables, the first one's where two have one; where there is
        none (or a rule has changed) they are fresh."""
        fitting = [(part, table) for part, table in tables if table.layout == self._layout()]
        read = [self._read(part, table) for part, table in fitting]
        keys = np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in read)])
        rows = read[0][1] if len(read) == 1 else np.concatenate([np.empty(0, self.kind.state), *(of for _, of in read)])
        del read
        self._waiting_keys, first = np.unique(keys, return_index=True)
        self._waiting_state = rows if np.array_equal(first, np.arange(len(keys))) else rows[first]
        del rows
        count = len(self.pairs)
        for piece in sparse.pieces(count, self.kind.state.itemsize):
            self.pairs.state[piece] = self.kernel.fresh(self.pairs.rule[piece])
        self._adopt(self.pairs.state, _keys(self.pairs.rule, ids[self.pairs.slot]))

    def check(self, table: KindTable) -> None:
        """Raise `CitynetError` if `load` could not read `table`."""
        if table.layout != self._layout():
            return
        old = np.frombuffer(table.rule, "<i4")
        kept = len(old) - int(np.count_nonzero(np.frombuffer(table.fresh, np.bool_)))
        if table.is_sparse:
            fits = sparse.fits(table.state, kept, self.kind.state)
        else:
            fits = len(table.state) == kept * self.kind.state.itemsize
        if not fits or (len(old) and not 0 <= old.min() <= old.max() < len(table.rules)):
            raise CitynetError(f"rules snapshot: states of kind {self.name} do not fit their index")

    def _read(self, part: Part, table: KindTable) -> tuple[I64, Rows]:
        """Keys and states of what `part` takes, of rules that have not changed."""
        old = np.frombuffer(table.rule, "<i4")
        series = np.frombuffer(table.series, "<i4").astype(np.int32)
        number = {rule.fingerprint: n for n, rule in enumerate(self.rules)}
        now = np.array([number.get(fingerprint, -1) for fingerprint in table.rules], np.int64)[old]
        wanted = (now >= 0) & part.has(series)
        moved = ~np.frombuffer(table.fresh, np.bool_) if table.fresh else np.ones(len(old), np.bool_)
        rule: I32 = now[wanted].astype(np.int32)
        rows = self.kernel.fresh(rule)
        place = np.cumsum(wanted) - 1  # of what is wanted, by entry of the table
        entry = np.flatnonzero(moved)
        for piece, states in _states(table, len(entry), self.kind.state):
            taken = wanted[entry[piece]]
            rows[place[entry[piece][taken]]] = states[taken]
        return _keys(rule, series[wanted]), rows

    def _is_fresh(self, rule: I32, state: Rows) -> Bools:
        """Which rows are those of new pairs, to the last bit."""
        same = np.empty(len(rule), np.bool_)
        for piece in sparse.pieces(len(rule), self.kind.state.itemsize):
            same[piece] = _blobs(state[piece]) == _blobs(self.kernel.fresh(rule[piece]))
        return same

    def _rows(self, place: I64) -> Rows:
        """States at these places of the pairs and, behind them, of those that wait."""
        count = len(self.pairs)
        rows = np.empty(len(place), self.kind.state)
        waits = place >= count
        rows[~waits] = self.pairs.state[place[~waits]]
        rows[waits] = self._waiting_state[place[waits] - count]
        return rows

    def _adopt(self, state: Rows, keys: I64) -> None:
        """Overwrite the rows of `state` for which a kept one waits."""
        if not len(self._waiting_keys):
            return
        place = np.minimum(np.searchsorted(self._waiting_keys, keys), len(self._waiting_keys) - 1)
        found = np.flatnonzero(self._waiting_keys[place] == keys)
        for piece in sparse.pieces(len(found), self.kind.state.itemsize):
            state[found[piece]] = self._waiting_state[place[found[piece]]]
        rest = np.ones(len(self._waiting_keys), np.bool_)
        rest[place[found]] = False
        self._keep(rest)

    def _keep(self, rest: Bools) -> None:
        self._waiting_keys = self._waiting_keys[rest]
        self._waiting_state = self._waiting_state[rest]

    def _layout(self) -> str:
        return repr(self.kind.state.descr)


def _rule_of(keys: I64) -> I32:
    """The rules of keys."""
    return (keys >> 32).astype(np.int32)


def _states(table: KindTable, count: int, layout: np.dtype[np.void]) -> Iterator[tuple[slice, Rows]]:
    """The rows of a table, piece by piece."""
    if table.is_sparse:
        return sparse.unpack(table.state, count, layout)
    rows: Rows = np.frombuffer(table.state, layout)
    return ((piece, rows[piece]) for piece in sparse.pieces(count, layout.itemsize))


def _blobs(rows: Rows) -> NDArray[np.void]:
    """Rows of a packed dtype as so many bytes each, which are equal to the last bit or not."""
    return np.ascontiguousarray(rows).view(f"V{rows.dtype.itemsize}")


def _keys(rule: I32, series: I32) -> I64:
    """(rule, series id) as one number, ordered by rule."""
    keys: I64 = (rule.astype(np.int64) << 32) | series.astype(np.int64) & 0xFFFF_FFFF
    return keys
