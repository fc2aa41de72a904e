"""The node of kind `witness`: for each doubted series, how far it is from its base, and what its witnesses say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np

from citynet.batch import F64, I32, I64, U8, Bools
from citynet_rules.colour import microseconds
from citynet_rules.joint.join import Block, Join
from citynet_rules.joint.node import Line, Made, Node
from citynet_rules.kinds.witness import CONTRADICTED, SUPPORTED, WitnessRule
from citynet_rules.transition import NONE_US, SeriesInfo

OWN = 0
EASE = 0.75


class WitnessNode(Node):
    """Objects are the doubted series, known from their first member on; witnesses join as they become known.

    The join remembers four readings a role: the newest (its value smoothed); the base and when it was moved; when the value
    changed last, and to what; when the first one was, and (of role 0) what was said last. One more remembers since when the
    doubted series has moved.
    """

    def __init__(self, rule: WitnessRule, near: Mapping[str, Sequence[str]]) -> None:
        self._rule = rule
        self._near = near if rule.neighbours else {}
        self._besides = len(rule.beside)
        self._roles = 1 + self._besides + max((len(of) for of in self._near.values()), default=0)
        join = Join(self._roles, 4 * self._roles + 1, microseconds(rule.wait_s), every_us=microseconds(rule.every_s))
        named = repr([rule.fingerprint, sorted((name, tuple(of)) for name, of in self._near.items())])
        fingerprint = blake2b(named.encode(), digest_size=16).hexdigest()
        metrics = {rule.metric, *(each.metric for each in rule.beside)}
        super().__init__(f"witness {rule.id}", fingerprint, rule.id, join, metrics)
        self.hold_us = microseconds(rule.hold_s)
        self._smooth_us = max(microseconds(rule.smooth_s), 1)
        self._lines: dict[tuple[str, str], Line] = {}
        self._objects: dict[str, int] = {}
        self._wanted = _wanted(rule, self._near)
        self.heard: set[int] = set()  # objects that have a witness
        self._fit()

    def _fit(self) -> None:
        """Gain, band and share by role."""
        rule, near = self._rule, self._rule.neighbours
        self._gain, self._band = np.ones(self._roles), np.full(self._roles, near.band if near else np.inf)
        self._share = np.full(self._roles, near.share if near else 1.0)
        self._accuses: Bools = np.zeros(self._roles, np.bool_)
        for role, each in enumerate(rule.beside, start=1):
            self._gain[role], self._band[role], self._share[role] = each.gain, each.band, each.share
            self._accuses[role] = each.contradicts

    def offer(self, line: Line) -> SeriesInfo | None:
        device, metric = line.info.device, line.info.metric
        if line.made:
            return None
        for owner, role in self._wanted_by(device, metric):
            self._lines[owner, str(role)] = line
            if owner in self._objects:
                self._link(self._objects[owner], role, line)
                self.heard.add(self._objects[owner])
        has_witnesses = bool(self._besides or self._near.get(device))
        if not (has_witnesses and self._rule.selects(device, metric)):
            return None
        self._lines[device, str(OWN)] = line
        return SeriesInfo(line.info.id, device, self._rule.metric, line.info.source)

    def _wanted_by(self, device: str, metric: str) -> list[tuple[str, int]]:
        """Whose witness a series is, and as which."""
        found = [(device, role) for role, each in enumerate(self._rule.beside, start=1) if each.metric == metric]
        return found + (self._wanted.get(device, []) if metric == self._rule.metric else [])

    def members(self, info: SeriesInfo) -> list[tuple[int, Line]]:
        number = self._objects[info.device] = len(self.join)
        found = [(role, self._lines.get((info.device, str(role)))) for role in range(self._roles)]
        known = [(role, line) for role, line in found if line is not None]
        if len(known) > 1:
            self.heard.add(number)
        return known

    def make(self, block: Block) -> Made | None:
        rows = block.rows
        is_instant = np.zeros(len(rows.object), np.bool_)
        is_instant[block.instants] = True
        begin = np.flatnonzero(np.append(True, rows.object[1:] != rows.object[:-1]))
        count = np.diff(begin, append=len(rows.object))
        by = np.argsort(-count, kind="stable")
        begin, count = begin[by], count[by]
        live = np.searchsorted(-count, -np.arange(int(count[0])), side="left")
        made: list[tuple[I64, F64, U8]] = []
        for rank, n in enumerate(live.tolist()):
            row = begin[:n] + rank
            self._take(rows.object[row], rows.role[row], rows.time_us[row], rows.value[row])
            row = row[is_instant[row]]
            said, off = self._say(rows.object[row], rows.time_us[row])
            changed = self._changed(rows.object[row], said)
            made.append((row[changed], off[changed], said[changed]))
        at = np.concatenate([row for row, _, _ in made])
        order = np.argsort(at)
        off = np.concatenate([part for _, part, _ in made])[order]
        said = np.concatenate([part for _, _, part in made])[order]
        at = at[order]
        return Made(rows.object[at], rows.time_us[at], off, said, None) if len(at) else None

    def _take(self, owner: I32, role: I32, time_us: I64, value: F64) -> None:
        """One reading of each of these objects."""
        roles, state = self._roles, self.join.state
        when, what = state["time_us"], state["value"]
        base_us, base = when[owner, roles + role], what[owner, roles + role]
        is_first = base_us == NONE_US
        first_us = np.where(is_first, time_us, when[owner, 3 * roles + role])
        span_us = np.minimum(self._rule.tau_s * 1e6, np.maximum(time_us - first_us, 1))
        far = (role == OWN) & (np.abs(value - base) >= self._rule.band)
        if self._rule.tells is not None:  # a proportion is kept only where all bases stand still
            far |= np.abs(what[owner, OWN] - what[owner, roles + OWN]) >= self._rule.band
        span_us = np.where(far, self._rule.tau_s * 1e6, span_us)
        weight = np.minimum(1.0, (time_us - base_us) / span_us)
        what[owner, roles + role] = np.where(is_first, value, base + (value - base) * weight)
        when[owner, roles + role] = time_us
        when[owner, 3 * roles + role] = first_us
        changed = is_first | (value != what[owner, 2 * roles + role])
        when[owner, 2 * roles + role] = np.where(changed, time_us, when[owner, 2 * roles + role])
        what[owner, 2 * roles + role] = value
        smooth = what[owner, role]
        share = np.minimum(1.0, (time_us - when[owner, role]) / self._smooth_us)
        what[owner, role] = np.where(is_first, value, smooth + (value - smooth) * share)
        when[owner, role] = time_us

    def _say(self, owner: I32, time_us: I64) -> tuple[U8, F64]:
        """What the witnesses of these objects say at these times, and how far the doubted series are from their bases."""
        roles, state, rule = self._roles, self.join.state, self._rule
        when, what = state["time_us"][owner], state["value"][owner]
        off = what[:, :roles] - what[:, roles : 2 * roles]
        seen = when[:, :roles] >= (time_us - round(rule.max_age_s * 1e6))[:, None]
        alive = when[:, 2 * roles : 3 * roles] >= (time_us - round(rule.alive_s * 1e6))[:, None]
        own, before = off[:, OWN], what[:, 3 * roles]
        ease = np.where(before == CONTRADICTED, EASE, 1.0)  # a contradiction ends later than it begins
        moved = np.abs(own) >= ease * rule.band
        wanted = self._gain * own[:, None]
        along = off * np.sign(wanted) >= np.maximum(self._band, self._share * np.abs(wanted))
        live = seen & alive
        live[:, OWN] = False
        heard = live & (when[:, :roles] >= self._moved_since(owner, moved)[:, None])
        supported = moved & (live & along).any(axis=1)
        accused = (heard & self._accuses & (np.abs(wanted) >= 2 * ease[:, None] * self._band)).any(axis=1)
        if rule.neighbours is not None and rule.neighbours.contradicts:
            accused |= heard[:, 1 + self._besides :].sum(axis=1) >= rule.neighbours.count_min
        said = np.where(supported, SUPPORTED, np.where(moved & accused, CONTRADICTED, 0))
        return np.where(seen[:, OWN], said, before).astype(np.uint8), own

    def _moved_since(self, owner: I32, moved: Bools) -> I64:
        """When the reading was taken with which these doubted series moved; any time for those that have not."""
        times = self.join.state["time_us"]
        channel = 4 * self._roles
        since_us = np.where(moved, times[owner, channel], NONE_US)
        since_us = np.where(moved & (since_us == NONE_US), times[owner, OWN], since_us)
        times[owner, channel] = since_us
        return since_us

    def _changed(self, owner: I32, said: U8) -> Bools:
        """Where something else is said than before."""
        state, channel = self.join.state, 3 * self._roles
        changed: Bools = said != state["value"][owner, channel]
        state["value"][owner[changed], channel] = said[changed]
        return changed


def _wanted(rule: WitnessRule, near: Mapping[str, Sequence[str]]) -> dict[str, list[tuple[str, int]]]:
    """By neighbour: the devices it is a neighbour of, and its role there."""
    found: dict[str, list[tuple[str, int]]] = {}
    for owner, of in near.items():
        for rank, neighbour in enumerate(of):
            found.setdefault(neighbour, []).append((owner, 1 + len(rule.beside) + rank))
    return found
