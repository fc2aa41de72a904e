"""Late readings in the database: where they lie, and what hindsight made of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from citynet.batch import SeriesBatch
from citynet.quality import LATE
from citynet.runtime.failpoint import hit
from citynet_ingest.store import sql
from citynet_rules.engine import SeriesInfo, Transition
from citynet_rules.proof.alerts import Alert
from citynet_rules.retrospect import Hindsight, Known
from citynet_rules.rule import Rule
from citynet_rules.transition import Opinion

Connection = psycopg.Connection[Any]
_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ENDED = "judged in hindsight up to here; what follows was judged as it came"


@dataclass(frozen=True, slots=True)
class LateSpan:
    """Late readings of a series that no hindsight has looked at, µs."""

    info: SeriesInfo
    from_us: int
    to_us: int
    known_us: int
    revision: int


def note_late(connection: Connection, rows: SeriesBatch) -> None:
    """Note where the late readings of a commit lie, in its transaction. `rows` are sorted by series and time."""
    is_late = (rows.quality & LATE) != 0
    if not is_late.any():
        return
    late = rows.picked(is_late)
    start = late.starts()
    stop = np.append(start[1:], len(late))
    spans = {
        "series": late.series[start].tolist(),
        "from": late.time_us[start].tolist(),
        "to": late.time_us[stop - 1].tolist(),
        "readings": (stop - start).tolist(),
    }
    connection.execute(sql.text("late_span_add"), spans)


def due(connection: Connection, settle_s: float, patience_s: float, limit: int) -> list[LateSpan]:
    """What is to be judged now, longest known first."""
    asked = {"settle_s": settle_s, "patience_s": patience_s, "limit": limit}
    return [
        LateSpan(SeriesInfo(series, device, metric, source), from_us, to_us, known_us, revision)
        for series, device, metric, source, from_us, to_us, known_us, revision in connection.execute(
            sql.text("late_span_due"), asked
        ).fetchall()
    ]


def waiting(connection: Connection) -> int:
    """How many series wait."""
    row = connection.execute(sql.text("late_span_count")).fetchone()
    return int(row[0]) if row else 0


def window(connection: Connection, series: int, from_us: int, to_us: int, limit: int) -> SeriesBatch:
    """The earliest stored readings of a series in [from, to), late ones too, by time."""
    asked = {"series": series, "from_at": _moment(from_us), "to_at": _moment(to_us), "limit": limit}
    rows = connection.execute(sql.text("readings_window"), asked).fetchall()
    time_us, value, quality = zip(*rows, strict=True) if rows else ((), (), ())
    return SeriesBatch(
        np.full(len(rows), series, np.int32),
        np.array(time_us, np.int64),
        np.array(value, np.float64),
        np.array(quality, np.uint8),
    )


def known(connection: Connection, rules: Sequence[Rule], device: str, from_us: int, to_us: int) -> list[Known]:
    """Recorded alerts of these rules and a device that were in force within [from, to]."""
    asked = {
        "rules": [rule.id for rule in rules],
        "object": device,
        "from_at": _moment(from_us),
        "to_at": _moment(to_us),
    }
    return [Known(ident, Alert(*facts)) for ident, *facts in connection.execute(sql.text("alerts_known"), asked)]


def record(connection: Connection, span: LateSpan, found: Hindsight | None, rules: Sequence[Rule]) -> bool:
    """Write what hindsight found, all of it together with the note that it looked; False, and nothing, if more came since."""
    by_id = {rule.id: rule for rule in rules}
    with connection.transaction():
        seen = {"series": span.info.id, "revision": span.revision}
        if connection.execute(sql.text("late_span_done"), seen).rowcount != 1:
            return False
        if found is None or not (found.raised or found.revised):
            return True
        connection.execute("SELECT lock_transitions()")
        with connection.cursor() as cursor:
            for transitions in found.raised:
                _raise(cursor, transitions, by_id[transitions[0].rule], found.until_us, span.known_us)
            for each in found.revised:
                facts = {"raised_us": each.raised_us, "cleared_us": each.cleared_us, "level": each.level}
                evidence = {"revised": facts | {"withdrawn": each.withdrawn}, "known_us": span.known_us}
                texts = {"text_zh": each.text_zh, "text_en": each.text_en}
                row = {"alert_id": each.ident, "level": each.level, "at": _moment(span.known_us), **texts}
                cursor.execute(sql.text("alert_revise"), row | {"evidence": Jsonb(evidence)})
        connection.execute("SELECT pg_notify('citynet_alert', '')")
        hit("ingest.hindsight")
    return True


def _raise(
    cursor: psycopg.Cursor[Any], transitions: Sequence[Transition], rule: Rule, until_us: int, known_us: int
) -> None:
    """One retrospective alert with its transitions; where it did not clear, it ends with the window."""
    first, last = transitions[0], next(t for t in reversed(transitions) if t.kind != "verdict")
    cleared_us = last.time_us if last.kind == "clear" else max(until_us, last.time_us)
    facts: Mapping[str, object] = {
        "alert_id": first.alert_id,
        "rule": first.rule,
        "version": first.version,
        "domain": rule.domain,
        "object": first.object,
        "series": first.series,
        "level": last.level,
        "level_max": max(t.level for t in transitions),
        "raised_at": _moment(first.time_us),
        "cleared_at": _moment(cleared_us),
        "value": last.value,
        "limit": last.limit if last.limit is not None else first.limit,
        "title_zh": rule.title_zh,
        "title_en": rule.title_en,
        "text_zh": last.text_zh,
        "text_en": last.text_en,
        "mode": rule.mode,
        "known_at": _moment(known_us),
    }
    if cursor.execute(sql.text("retrospective_add"), facts).rowcount != 1:
        return
    steps = [_step(t, rule.mode) for t in transitions]
    if last.kind != "clear":
        words = {"kind": "supersede", "at": _moment(cleared_us), "comment": ENDED, "text_zh": "", "text_en": ""}
        steps.append(_step(last, rule.mode) | words | {"evidence": Jsonb({}), "value": None, "limit": None})
    cursor.executemany(sql.text("retrospective_step_add"), steps)
    verdicts = [verdict_row(t, t.opinion) for t in transitions if t.opinion is not None]
    cursor.executemany(sql.text("verdict_record"), verdicts)


def _step(transition: Transition, mode: str) -> dict[str, object]:
    return {
        "alert_id": transition.alert_id,
        "kind": transition.kind,
        "level": transition.level,
        "at": _moment(transition.time_us),
        "comment": None,
        "value": transition.value,
        "limit": transition.limit,
        "evidence": Jsonb(transition.evidence),
        "text_zh": transition.text_zh,
        "text_en": transition.text_en,
        "mode": mode,
    }


def verdict_row(transition: Transition, opinion: Opinion) -> dict[str, object]:
    """Parameters of ``verdict_record.sql``."""
    return {
        "alert_id": transition.alert_id,
        "verdict": opinion.state,
        "audience": opinion.audience,
        "since": _moment(transition.time_us),
        "verdict_zh": opinion.zh,
        "verdict_en": opinion.en,
    }


def _moment(time_us: int) -> dt.datetime:
    return _UNIX + dt.timedelta(microseconds=time_us)
