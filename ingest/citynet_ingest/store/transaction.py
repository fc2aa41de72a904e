"""One commit, one transaction: readings, cursors, dead letters, losses, alerts, the engine's snapshot, all or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import psycopg
from psycopg.types.json import Jsonb

from citynet.batch import I32, SeriesBatch
from citynet.runtime.failpoint import hit
from citynet_ingest import metrics
from citynet_ingest.commit import NO_SERIES, Commit, UplinkSpan
from citynet_ingest.copybody import copy_pieces
from citynet_ingest.store import redrive, sql
from citynet_ingest.store.fence import FencedError
from citynet_ingest.store.late import note_late, verdict_row
from citynet_ingest.store.paths import Why, by_day, choose, split_late
from citynet_ingest.store.rollups import copy_partials
from citynet_rules.engine import Transition
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet

Connection = psycopg.Connection[tuple[object, ...]]
_EPOCH_ORDINAL = dt.date(1970, 1, 1).toordinal()
_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_COPY = "COPY reading (time, series_id, value, quality) FROM STDIN (FORMAT binary)"


class Partitions:
    """Days whose partitions are known to exist. Made ahead of need: a day and the one after it."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def ensure(self, connection: Connection, days: list[int]) -> None:
        """Make what is missing, in a transaction of its own (creating a table inside a commit would hold its lock)."""
        missing = sorted({day + ahead for day in days for ahead in (0, 1)} - self._known)
        if missing:
            dates = [dt.date.fromordinal(_EPOCH_ORDINAL + day) for day in missing]
            connection.execute("SELECT ensure_reading_partitions(%s::date[])", (dates,))
            connection.execute("SELECT ensure_rollup_partitions(%s::date[])", (dates,))
            self._known.update(missing)

    def forget(self) -> None:
        self._known.clear()


@dataclass(frozen=True, slots=True)
class Target:
    """Where commits go: the worker's name and claim, the armed rules, how many receipts a lane keeps, and what the server
    can do."""

    worker: str
    claim: int
    rules: RuleSet
    receipts_keep: int
    has_columnstore: bool


def apply(connection: Connection, commit: Commit, target: Target) -> None:
    """Write a commit in one transaction.

    Raises:
        FencedError: a cursor or the commit number is not where it was left. psycopg.Error: as the database says.
    """
    hit("ingest.before-begin")
    with connection.transaction():
        step = {"claim": target.claim, "number": commit.number}
        if connection.execute(sql.text("commit_step"), step).rowcount != 1:
            raise FencedError(f"worker {target.worker}: another ingest worker has taken our shards since; stopping")
        copy_rows(connection, commit.rows, commit.bounded, has_columnstore=target.has_columnstore)
        note_late(connection, commit.rows)
        copy_partials(connection, commit.partials)
        _cursors(connection, commit)
        _books(connection, commit, target.worker, target.receipts_keep)
        _events(connection, commit)
        if commit.redriven:
            redrive.book(connection, commit.redriven, target.worker)
        for status in commit.statuses:
            connection.execute(
                sql.text("gateway_status"),
                {
                    "gateway": status.gateway,
                    "online": status.online,
                    "body": status.body,
                    "at_us": status.at_us,
                },
            )
        if commit.transitions:
            _alerts(connection, commit.transitions, target.rules)
        if commit.snapshot is not None:
            connection.execute(sql.text("snapshot_save"), {"claim": target.claim, "state": commit.snapshot})
        hit("ingest.before-commit")
    hit("ingest.after-commit")


def copy_rows(connection: Connection, rows: SeriesBatch, bounded: I32 = NO_SERIES, *, has_columnstore: bool) -> None:
    """COPY rows, sorted by series and time, into `reading`, each by the way that fits it; rows of `bounded` series may be older
    than what is stored of them, as late ones are."""
    current, late = split_late(rows, bounded)
    why = choose(current, has_columnstore=has_columnstore)
    if len(current):
        metrics.COPIED.labels(why.value).inc(len(current))
        if why is Why.DIRECT:
            for part in by_day(current):
                _direct(connection, part)
        else:
            _copy(connection, current)
    if len(late):
        metrics.COPIED.labels(Why.LATE.value).inc(len(late))
        _copy(connection, late)


def _direct(connection: Connection, rows: SeriesBatch) -> None:
    """COPY straight into the columnstore. The settings end with this COPY: what follows is not sorted."""
    connection.execute(sql.text("direct_on"))
    _copy(connection, rows)
    connection.execute(sql.text("direct_off"))


def _copy(connection: Connection, rows: SeriesBatch) -> None:
    pieces = copy_pieces(rows)
    with connection.cursor().copy(_COPY) as copy:
        copy.write(next(pieces))
        hit("ingest.mid-copy")
        for piece in pieces:
            copy.write(piece)


def _cursors(connection: Connection, commit: Commit) -> None:
    steps = commit.steps
    if steps:
        moves = {
            "gateways": [step.gateway for step in steps],
            "streams": [step.stream for step in steps],
            "epochs": [step.epoch for step in steps],
            "before": [step.before for step in steps],
            "seqs": [step.seq for step in steps],
            "stored": [step.stored for step in steps],
            "dead": [step.dead_lettered for step in steps],
            "lost": [step.lost for step in steps],
            "noted": [step.noted for step in steps],
            "claimed": [step.claimed for step in steps],
        }
        if any(step.before == 0 for step in steps):
            connection.execute(sql.text("cursor_open"), moves)
        if connection.execute(sql.text("cursor_step"), moves).rowcount != len(steps):
            raise FencedError("a cursor was moved by another process; stopping")
    if commit.heard:
        canaries = [commit.canaries.get(gateway) for gateway in commit.heard]
        connection.execute(sql.text("gateway_heard"), {"gateways": commit.heard, "canaries": canaries})
    if commit.claims:
        newest = {claim[:3]: claim[3] for claim in commit.claims}
        gateways, streams, epochs = zip(*newest, strict=True)
        connection.execute(
            sql.text("claim_raise"),
            {
                "gateways": list(gateways),
                "streams": list(streams),
                "epochs": list(epochs),
                "claimed": list(newest.values()),
            },
        )


def _books(connection: Connection, commit: Commit, worker: str, receipts_keep: int) -> None:
    with connection.cursor() as cursor:
        if commit.dead:
            cursor.executemany(sql.text("dead_letter_add"), [_fields(letter) for letter in commit.dead])
        if commit.losses:
            cursor.executemany(sql.text("loss_add"), [_fields(loss) for loss in commit.losses])
        if commit.notes:
            cursor.executemany(
                sql.text("note_add"), [_fields(note) | {"body": Jsonb(note.body)} for note in commit.notes]
            )
        tally = commit.tally
        if tally.stored or tally.dead_lettered or tally.duplicates:
            cursor.execute(sql.text("tally_add"), _fields(tally) | {"worker": worker})
        if commit.digests:
            hashes = [b"".join(digests) for digests in commit.digests.values()]
            cursor.execute(sql.text("receipt_add"), {"lanes": list(commit.digests), "hashes": hashes})
        if commit.trims:
            cursor.execute(sql.text("receipt_trim"), {"lanes": commit.trims, "keep": receipts_keep})
        if commit.keys:
            digests, bodies = zip(*((key.digest, key.body) for key in commit.keys), strict=True)
            cursor.execute(sql.text("message_key_add"), {"digests": list(digests), "bodies": list(bodies)})
        if commit.uplinks:
            spans = list(commit.uplinks.values())
            columns = {name: [getattr(span, name) for span in spans] for name in UplinkSpan.__slots__}
            cursor.execute(sql.text("uplink_count"), columns)


def _events(connection: Connection, commit: Commit) -> None:
    if commit.broker_dropped is not None:
        connection.execute(sql.text("broker_counter_set"), {"value": commit.broker_dropped})
    for event in commit.events:
        connection.execute(sql.text("system_event_add"), _fields(event))


def _fields(row: object) -> dict[str, object]:
    """Columns of a slotted dataclass by name."""
    return {name: getattr(row, name) for name in row.__slots__}  # type: ignore[attr-defined]


def _alerts(connection: Connection, transitions: Sequence[Transition], rules: RuleSet) -> None:
    by_id = {rule.id: rule for rule in rules.rules}
    connection.execute("SELECT lock_transitions()")
    with connection.cursor() as cursor:
        for kinds, group in groupby(transitions, key=lambda t: t.kind == "verdict"):
            rows = [_alert_row(t, by_id[t.rule]) for t in group]
            cursor.executemany(sql.text("revision_record" if kinds else "transition_record"), rows)
        verdicts = [verdict_row(t, t.opinion) for t in transitions if t.opinion is not None]
        if verdicts:
            cursor.executemany(sql.text("verdict_record"), verdicts)
    connection.execute("SELECT pg_notify('citynet_alert', '')")


def _alert_row(transition: Transition, rule: Rule) -> dict[str, object]:
    return {
        "alert_id": transition.alert_id,
        "rule": transition.rule,
        "version": transition.version,
        "domain": rule.domain,
        "object": transition.object,
        "series": transition.series,
        "kind": transition.kind,
        "level": transition.level,
        "at": _UNIX + dt.timedelta(microseconds=transition.time_us),
        "value": transition.value,
        "limit": transition.limit,
        "evidence": Jsonb(transition.evidence),
        "title_zh": rule.title_zh,
        "title_en": rule.title_en,
        "text_zh": transition.text_zh,
        "text_en": transition.text_en,
        "mode": rule.mode,
    }
