"""What the settings of ``[storage]`` ask of the database: pure decisions, given what is there.

Retention measures age from the earlier of the server's clock and the newest reading: a clock that jumps ahead does not age the
data. What both get wrong together is bounded by `drop_days_max`: a run that would drop more drops nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store.holds import Hold, keeping, why_held
from citynet_ingest.store.parts import HOUR, MINUTE, READING, TABLES, Part

DEAD_LETTER, NOTE = ROW_TABLES = ("dead_letter", "gateway_note")
_DAY = dt.timedelta(days=1)


class What(StrEnum):
    """Kinds of steps."""

    CHUNK = "chunk interval"
    COLUMNSTORE = "columnstore after"
    FOREIGN = "retention job of TimescaleDB"
    DROP = "drop"
    DELETE = "delete"


class Outcome(StrEnum):
    """What becomes of a step. `is_failure`: a person should look."""

    DUE = "due"
    DONE = "done"
    HELD = "held"
    UNCOVERED = "not in rollups"
    TOO_MUCH = "too much at once"
    BUSY = "busy"

    @property
    def is_failure(self) -> bool:
        return self in (Outcome.UNCOVERED, Outcome.TOO_MUCH, Outcome.BUSY)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan. `now` and `wanted` are words; `part` and `until` say what a drop or delete is about."""

    table: str
    what: What
    now: str
    wanted: str
    outcome: Outcome = Outcome.DUE
    note: str = ""
    part: Part | None = None
    until: dt.datetime | None = None
    interval: dt.timedelta | None = None

    def ended(self, outcome: Outcome, note: str = "") -> Step:
        return replace(self, outcome=outcome, note=note or self.note)

    def to_json(self) -> dict[str, object]:
        found = asdict(replace(self, part=None))
        for internal in ("until", "interval"):
            del found[internal]
        return found | {"part": self.part.name if self.part else None}


@dataclass(frozen=True, slots=True)
class Policies:
    """What the server is set to: chunk interval and columnstore age by table, tables with a retention job of TimescaleDB."""

    chunk: Mapping[str, dt.timedelta]
    columnstore: Mapping[str, dt.timedelta]
    foreign: Mapping[str, dt.timedelta]


def keep(settings: StorageSettings, table: str) -> dt.timedelta | None:
    """How long a table keeps its rows; None: for ever."""
    days = {
        READING: settings.reading_keep_days,
        MINUTE: settings.minute_keep_days,
        HOUR: settings.hour_keep_days,
        DEAD_LETTER: settings.dead_letter_keep_days,
        NOTE: settings.note_keep_days,
    }[table]
    return dt.timedelta(days=days) if days else None


def policy_steps(settings: StorageSettings, found: Policies) -> list[Step]:
    """How TimescaleDB is to be set otherwise than it is."""
    chunk_hours = (settings.reading_chunk_hours, settings.minute_chunk_hours, settings.hour_chunk_hours)
    after_hours = (
        settings.reading_columnstore_after_hours,
        settings.minute_columnstore_after_hours,
        settings.hour_columnstore_after_hours,
    )
    steps = []
    for table, chunk_h, after_h in zip(TABLES, chunk_hours, after_hours, strict=True):
        chunk, after = dt.timedelta(hours=chunk_h), dt.timedelta(hours=after_h) or None
        if chunk and found.chunk[table] != chunk:
            steps.append(Step(table, What.CHUNK, words(found.chunk[table]), words(chunk), interval=chunk))
        if found.columnstore.get(table) != after:
            now = words(found.columnstore.get(table))
            steps.append(Step(table, What.COLUMNSTORE, now, words(after), interval=after))
        if table in found.foreign:
            note = "it knows neither holds nor the books"
            steps.append(Step(table, What.FOREIGN, words(found.foreign[table]), "none", note=note))
    return steps


def reference(clock: dt.datetime, newest: dt.datetime | None) -> dt.datetime | None:
    """The time that age is measured from; None, and nothing is old, without readings."""
    return min(clock, newest) if newest else None


def drop_steps(
    settings: StorageSettings,
    parts: Iterable[Part],
    holds: Sequence[Hold],
    at: dt.datetime,
    *,
    accept_large: bool = False,
) -> list[Step]:
    """Which parts are to be dropped at a reference time: wholly older than their table keeps, and not held.

    Of a table of which more than `drop_days_max` would go, nothing does; one part at a time is always allowed, however long.
    """
    steps: list[Step] = []
    by_table: dict[str, list[Part]] = {}
    for part in parts:
        by_table.setdefault(part.table, []).append(part)
    for table, its_parts in by_table.items():
        age = keep(settings, table)
        old = [part for part in its_parts if age is not None and part.to_at <= at - age]
        kept = {part: found for part in old if (found := keeping(holds, part.from_at, part.to_at))}
        going = [part for part in old if part not in kept]
        steps += [_drop(part, age).ended(Outcome.HELD, why_held(found)) for part, found in kept.items()]
        days = sum((part.span for part in going), dt.timedelta()) / _DAY
        if len(going) > 1 and days > settings.drop_days_max and not accept_large:
            steps.append(_too_much(Step(table, What.DROP, f"{len(going)} parts", words(age)), days, settings))
        else:
            steps += [_drop(part, age) for part in going]
    return steps


def delete_step(
    settings: StorageSettings, table: str, due: tuple[int, int], until: dt.datetime, *, accept_large: bool = False
) -> Step | None:
    """Deleting old rows; `due` is how many there are and on how many days they came."""
    rows, days = due
    if not rows:
        return None
    step = Step(table, What.DELETE, f"{rows} rows", words(keep(settings, table)), until=until)
    return step if accept_large or days <= settings.drop_days_max else _too_much(step, days, settings)


def outliving(settings: StorageSettings, part: Part, at: dt.datetime) -> list[str]:
    """Rollup tables that keep the span of a part of `reading` longer than `reading` does: they must have it first."""
    if part.table != READING or not settings.require_rollups:
        return []
    ages = {table: keep(settings, table) for table in (MINUTE, HOUR)}
    return [table for table, age in ages.items() if age is None or part.to_at > at - age]


def words(interval: dt.timedelta | None) -> str:
    """An interval in whole days or hours; ``never`` for None."""
    if interval is None:
        return "never"
    hours = interval / dt.timedelta(hours=1)
    return f"{hours / 24:g} d" if hours % 24 == 0 else f"{hours:g} h"


def _drop(part: Part, age: dt.timedelta | None) -> Step:
    return Step(
        part.table, What.DROP, f"{part.from_at:%Y-%m-%d %H:%M} … {part.to_at:%Y-%m-%d %H:%M}", words(age), part=part
    )


def _too_much(step: Step, days: float, settings: StorageSettings) -> Step:
    note = f"{days:g} days would go, at most {settings.drop_days_max} may in one run: is the clock right? --accept-large-drop"
    return step.ended(Outcome.TOO_MUCH, note)
