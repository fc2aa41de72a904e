"""A join's state in a snapshot: rows of its objects, by the id of the series they are known by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from citynet.batch import I32, I64, Bools
from citynet.errors import CitynetError
from citynet_rules.joint.join import Join, Readings
from citynet_rules.snapshot import JoinTable

_READING = np.dtype([("anchor", "<i4"), ("role", "<i4"), ("time_us", "<i8"), ("value", "<f8"), ("quality", "u1")])


class Kept:
    """States of objects that are not there yet."""

    def __init__(self, join: Join) -> None:
        self._join = join
        self._clear()

    def _clear(self) -> None:
        self._anchor: I32 = np.empty(0, np.int32)
        self._state = np.empty(0, self._join.layout)
        self._rows = {name: np.empty(0, _READING) for name in ("waiting", "past")}

    def save(self, name: str, fingerprint: str) -> JoinTable:
        """All states, with those that still wait for their objects."""
        join = self._join
        join.forget()
        own: I32 = np.array(join.anchor, np.int32)
        anchor = np.concatenate([own, self._anchor])
        state = np.concatenate([join.state, self._state])
        order = np.argsort(anchor, kind="stable")
        rows = {
            part: _sorted(np.concatenate([_saved(readings, own), self._rows[part]])).tobytes()
            for part, readings in (("waiting", join.waiting), ("past", join.past))
        }
        columns = (anchor[order].astype("<i4").tobytes(), state[order].tobytes())
        return JoinTable(name, fingerprint, repr(join.layout.descr), *columns, **rows)

    def load(self, tables: Sequence[tuple[JoinTable, Bools]]) -> None:
        """Replace all states by those of tables, each with which of its objects to take; of an object that several have, the
        first one's counts."""
        join = self._join
        join.state[:] = join.fresh(len(join))
        join.waiting, join.past = Readings.none(), Readings.none()
        taken: I32 = np.empty(0, np.int32)
        self._clear()
        for table, asked in tables:
            anchor = np.frombuffer(table.anchor, "<i4").astype(np.int32)
            wanted = asked & ~np.isin(anchor, taken)
            taken = np.concatenate([taken, anchor[wanted]])
            self._anchor = taken
            self._state = np.concatenate([self._state, np.frombuffer(table.state, join.layout)[wanted]])
            for part, rows in (("waiting", table.waiting), ("past", table.past)):
                read = np.frombuffer(rows, _READING)
                fits = np.isin(read["anchor"], anchor[wanted])
                self._rows[part] = np.concatenate([self._rows[part], read[fits]])
        self.adopt(np.arange(len(join)))

    def adopt(self, objects: I64) -> None:
        """Give these objects the states that were kept for them."""
        if not len(self._anchor) or not len(objects):
            return
        join = self._join
        own: I32 = np.array(join.anchor, np.int32)[objects]
        order = np.argsort(self._anchor)
        place = np.minimum(np.searchsorted(self._anchor, own, sorter=order), len(order) - 1)
        row = order[place]
        found = self._anchor[row] == own
        join.state[objects[found]] = self._state[row[found]]
        number = {int(anchor): int(n) for anchor, n in zip(own[found], objects[found], strict=True)}
        join.waiting = join.waiting.plus([self._claim("waiting", number)])
        past = join.past.plus([self._claim("past", number)])
        join.past = past.picked(np.lexsort((past.time_us, past.role, past.object)))
        rest = ~np.isin(self._anchor, own[found])
        self._anchor, self._state = self._anchor[rest], self._state[rest]

    def _claim(self, part: str, number: dict[int, int]) -> Readings:
        rows = self._rows[part]
        mine = np.isin(rows["anchor"], np.array(list(number), np.int32))
        self._rows[part] = rows[~mine]
        rows = rows[mine]
        owner: I32 = np.array([number[anchor] for anchor in rows["anchor"].tolist()], np.int32)
        columns = (rows["time_us"].astype(np.int64), rows["value"].astype(np.float64), rows["quality"].astype(np.uint8))
        return Readings(owner, rows["role"].astype(np.int32), *columns)


def check(table: JoinTable, join: Join) -> bool:
    """Whether `table` can be loaded into `join`.

    Raises:
        CitynetError: it says so but cannot.
    """
    if table.layout != repr(join.layout.descr):
        return False
    anchors = len(table.anchor) // 4
    fits = len(table.anchor) % 4 == 0 and len(table.state) == anchors * join.layout.itemsize
    if not fits or len(table.waiting) % _READING.itemsize or len(table.past) % _READING.itemsize:
        raise CitynetError(f"rules snapshot: states of {table.name[:80]} do not fit their index")
    for rows in (table.waiting, table.past):
        role = np.frombuffer(rows, _READING)["role"]
        if len(role) and not 0 <= role.min() <= role.max() < join.roles:
            raise CitynetError(f"rules snapshot: a reading of {table.name[:80]} has no role in it")
    return True


def _saved(rows: Readings, anchor: I32) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    found = np.empty(len(rows.object), _READING)
    found["anchor"] = anchor[rows.object]
    for name in ("role", "time_us", "value", "quality"):
        found[name] = getattr(rows, name)
    return found


def _sorted(rows: np.ndarray[tuple[int], np.dtype[np.void]]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return rows[np.lexsort((rows["time_us"], rows["role"], rows["anchor"]))]
