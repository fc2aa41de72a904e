"""What a bench line says: its values, the baseline of the same run, floors and goals, and whether they are met. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bound:
    """Floor and goal of one value of a line; `at_most` where less is better. A spread or a ratio is bound like a rate."""

    value: str
    floor: float
    goal: float
    at_most: bool = False

    def holds(self, found: float, limit: float) -> bool:
        """Whether `found` is on the right side of `limit`."""
        return found <= limit if self.at_most else found >= limit


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. `values` are by name, units last; `baselines` what the ratio in `values` is taken against."""

    number: int
    name: str
    unit: str
    values: Mapping[str, float]
    bounds: tuple[Bound, ...] = ()
    baselines: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether every floor holds; None where nothing is demanded on this server."""
        return all(b.holds(self.values[b.value], b.floor) for b in self.bounds) if self.bounds else None

    @property
    def reaches_goal(self) -> bool | None:
        return all(b.holds(self.values[b.value], b.goal) for b in self.bounds) if self.bounds else None

    def as_dict(self) -> dict[str, object]:
        """The line for scripts. `ratio` is the value of that name, null where a line has no baseline."""
        return {
            "line": self.number,
            "name": self.name,
            "unit": self.unit,
            "values": {name: rounded(value) for name, value in self.values.items()},
            "baseline": {name: rounded(value) for name, value in self.baselines.items()},
            "ratio": {name: rounded(value) for name, value in self.values.items() if name.startswith("ratio")} or None,
            "floor": {bound.value: bound.floor for bound in self.bounds},
            "goal": {bound.value: bound.goal for bound in self.bounds},
            "at_most": sorted(bound.value for bound in self.bounds if bound.at_most),
            "ok": self.ok,
            "reaches_goal": self.reaches_goal,
            "notes": self.notes,
        }

    def as_text(self) -> list[str]:
        """The line for people: one row a value."""
        verdict = {None: "", True: "ok", False: "BELOW ITS FLOOR"}[self.ok]
        rows = [f"{self.number}  {self.name} [{self.unit}]  {verdict}{', goal reached' if self.reaches_goal else ''}"]
        bounds = {bound.value: bound for bound in self.bounds}
        for name, value in self.values.items():
            bound = bounds.get(name)
            sign = "≤" if bound and bound.at_most else "≥"
            limits = f"   floor {sign} {bound.floor:,g}, goal {sign} {bound.goal:,g}" if bound else ""
            rows.append(f"     {name:<32} {rounded(value):>14,}{limits}")
        rows += [f"     against {name:<24} {rounded(value):>14,}" for name, value in self.baselines.items()]
        return [*rows, f"     {self.notes}"] if self.notes else rows


def rounded(value: float) -> float:
    """Three digits behind the point below a hundred, none above ten thousand: what a measurement is worth."""
    if abs(value) >= 10_000:
        return round(value)
    return round(value, 1 if abs(value) >= 100 else 3)


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` per cent of them do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
