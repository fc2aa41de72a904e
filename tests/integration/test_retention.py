"""The life of the data on a real server: what goes, what stays, and that the books know it."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.sql import SQL

from citynet.errors import CitynetError
from citynet_ingest import audit
from citynet_ingest.store import holds
from citynet_ingest.store.parts import parts
from citynet_ingest.store.rebuild import rebuild
from citynet_ingest.store.server import probe
from tests.ingest import wait_for
from tests.life import PER_DAY, Connection, day, days_there, fill, parts_there, run, told

NOW = dt.datetime(2026, 6, 15, 12, tzinfo=dt.UTC)


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as opened:
        opened.execute("SET timezone = 'UTC'")
        yield opened


@pytest.fixture
def other(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


def is_balanced(connection: Connection) -> bool:
    return audit.run(connection).is_balanced


def test_what_is_too_old_goes_and_is_booked(connection: Connection) -> None:
    fill(connection, [day(ago, NOW) for ago in (13, 12, 10, 9, 1, 0)])
    dry = run(connection, NOW, dry=True, reading_keep_days=10, minute_keep_days=0)
    assert told(dry) == [("reading", "drop", "due")] * 2
    assert len(days_there(connection)) == 6, "a dry run changes nothing"
    done = run(connection, NOW, reading_keep_days=10, minute_keep_days=0)
    assert told(done) == [("reading", "drop", "done")] * 2
    assert days_there(connection) == [day(ago, NOW) for ago in (10, 9, 1, 0)], "day 10 is not wholly older than 10 days"
    assert day(13, NOW) not in parts_there(connection)
    booked = connection.execute(
        "SELECT actor, tbl, from_at::date, rows, records FROM retired ORDER BY from_at"
    ).fetchall()
    assert booked == [("tester", "reading", day(ago, NOW), PER_DAY, PER_DAY) for ago in (13, 12)]
    assert is_balanced(connection)
    assert run(connection, NOW, reading_keep_days=10, minute_keep_days=0).steps == [], "a second run has nothing to do"
    assert days_there(connection, "rollup_minute")[0] == day(13, NOW)


def test_the_audit_sees_a_part_that_went_without_the_books(connection: Connection) -> None:
    fill(connection, [day(5, NOW), day(0, NOW)])
    assert is_balanced(connection)
    connection.execute("DELETE FROM reading WHERE time < %s", (NOW - dt.timedelta(days=4),))
    assert not is_balanced(connection)


def test_rollups_computed_anew_keep_hours_whose_readings_are_gone(connection: Connection) -> None:
    """A straggler of a day that retention has taken is not that day: its rollups stay what they were."""
    fill(connection, [day(13, NOW), day(0, NOW)])
    run(connection, NOW, reading_keep_days=10, minute_keep_days=0)
    before = connection.execute("SELECT * FROM rollup_hour ORDER BY series_id, time").fetchall()
    straggler = dt.datetime.combine(day(13, NOW), dt.time(0, 7), dt.UTC)
    connection.execute("SELECT ensure_reading_partitions(%s::date[])", ([day(13, NOW)],))
    connection.execute("INSERT INTO reading SELECT %s, id, 1.0, 0 FROM series", (straggler,))
    found = rebuild(connection, straggler, straggler + dt.timedelta(hours=1), lambda _: None)
    assert (found.minutes, found.hours, found.retired_hours) == (0, 0, 2)
    assert connection.execute("SELECT * FROM rollup_hour ORDER BY series_id, time").fetchall() == before


def test_rollups_go_by_their_own_age(connection: Connection) -> None:
    fill(connection, [day(ago, NOW) for ago in (200, 5, 0)])
    done = run(connection, NOW, reading_keep_days=0, minute_keep_days=30, hour_keep_days=0, drop_days_max=40)
    assert told(done) == [("rollup_minute", "drop", "done")]
    assert days_there(connection, "rollup_minute") == [day(5, NOW), day(0, NOW)]
    assert len(days_there(connection)) == len(days_there(connection, "rollup_hour")) == 3
    assert is_balanced(connection)


def test_a_hold_keeps_the_whole_part_and_its_release_frees_it(connection: Connection) -> None:
    fill(connection, [day(ago, NOW) for ago in (13, 12, 0)])
    noon = dt.datetime.combine(day(13, NOW), dt.time(12), dt.UTC)
    hold = holds.place(connection, noon, noon + dt.timedelta(seconds=1), reason="case 7", actor="anna")
    done = run(connection, NOW, reading_keep_days=10, minute_keep_days=0)
    assert told(done) == [("reading", "drop", "held"), ("reading", "drop", "done")]
    assert "hold 1: case 7" in done.steps[0].note
    assert days_there(connection) == [day(13, NOW), day(0, NOW)]
    holds.release(connection, hold.id, reason="case closed", actor="bert")
    assert told(run(connection, NOW, reading_keep_days=10, minute_keep_days=0)) == [("reading", "drop", "done")]
    assert days_there(connection) == [day(0, NOW)]
    (kept,) = holds.all_holds(connection)
    assert (kept.placed_by, kept.reason, kept.released_by, kept.release_reason) == (
        "anna",
        "case 7",
        "bert",
        "case closed",
    )
    assert [row[2].date() for row in holds.already_gone(connection, kept)] == [day(13, NOW)]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM legal_hold",
        "UPDATE legal_hold SET to_at = from_at + interval '1 s'",
        "UPDATE legal_hold SET released_at = now(), released_by = 'x', released_role = 'x', release_reason = 'x', reason = 'y'",
    ],
)
def test_a_hold_cannot_be_removed_or_rewritten(connection: Connection, change: str) -> None:
    holds.place(connection, NOW, NOW + dt.timedelta(days=1), reason="r", actor="a")
    with pytest.raises(psycopg.errors.RaiseException, match="released once and otherwise never changed"):
        connection.execute(change.encode())
    holds.release(connection, 1, reason="done", actor="a")
    with pytest.raises(CitynetError, match="hold 1: was released at"):
        holds.release(connection, 1, reason="again", actor="a")
    with pytest.raises(CitynetError, match="hold 9: there is none"):
        holds.release(connection, 9, reason="r", actor="a")


def test_a_hold_that_comes_during_a_run_is_seen(connection: Connection, other: Connection, dsn: str) -> None:
    """The plan was made before the hold; the drop looks again under a lock."""
    fill(connection, [day(13, NOW), day(12, NOW), day(0, NOW)])
    first = parts(connection, probe(connection))[0]
    ended: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as third:
        settings = {"reading_keep_days": 10, "minute_keep_days": 0, "lock_wait_s": 30}
        work = threading.Thread(target=lambda: ended.extend(kind for *_, kind in told(run(third, NOW, **settings))))
        with other.transaction():  # a writer of the first part delays its drop; meanwhile the hold comes
            other.execute(SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(first.identifier))
            work.start()
            waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            wait_for(lambda: connection.execute(waiting, (third.info.backend_pid,)).fetchone(), "the drop waits")
            holds.place(connection, NOW - dt.timedelta(days=20), NOW, reason="r", actor="a")
        work.join()
    assert ended == ["held", "held"]
    assert len(days_there(connection)) == 3


def test_readings_that_no_rollup_has_are_kept(connection: Connection) -> None:
    fill(connection, [day(13, NOW)], with_rollups=False)
    fill(connection, [day(12, NOW), day(0, NOW)])
    connection.execute(
        "DELETE FROM rollup_hour WHERE ctid = (SELECT min(ctid) FROM rollup_hour WHERE time < %s)",
        (NOW - dt.timedelta(days=11),),
    )
    for dry in (True, False):
        done = run(connection, NOW, dry=dry, reading_keep_days=10, minute_keep_days=10, hour_keep_days=0)
        raw = [step for step in done.steps if step.table == "reading"]
        assert [str(step.outcome) for step in raw] == ["not in rollups"] * 2
        assert [step.note for step in raw] == [
            "72 of 72 readings are not in rollup_hour",
            "1 of 72 readings are not in rollup_hour",
        ]
    assert len(days_there(connection)) == 3
    done = run(connection, NOW, reading_keep_days=10, minute_keep_days=0, hour_keep_days=0, require_rollups=False)
    assert told(done) == [("reading", "drop", "done")] * 2


def test_readings_that_minutes_leave_out_are_in_their_hours(connection: Connection) -> None:
    """Of a slow series there are no minutes. What neither level has keeps the readings, whichever of the two outlives them."""
    fill(connection, [day(13, NOW), day(12, NOW), day(0, NOW)])
    connection.execute("DELETE FROM rollup_minute WHERE series_id <> 2")
    connection.execute("DELETE FROM rollup_hour WHERE series_id = 2 AND time < %s", (day(12, NOW),))
    settings = {"reading_keep_days": 10, "minute_keep_days": 0}
    done = run(connection, NOW, **settings, hour_keep_days=5)
    assert [kind for kind in told(done) if kind[0] == "reading"] == [("reading", "drop", "done")] * 2
    fill(connection, [day(11, NOW)])
    connection.execute("DELETE FROM rollup_minute")
    connection.execute("DELETE FROM rollup_hour WHERE series_id = 2")
    (step,) = run(connection, NOW, **settings, hour_keep_days=10).steps
    assert step.note == "24 of 72 readings are not in rollup_minute"


def test_a_late_reading_of_a_day_that_is_gone_is_kept_until_a_rollup_has_it(connection: Connection) -> None:
    fill(connection, [day(13, NOW), day(0, NOW)])
    settings = {"reading_keep_days": 10, "minute_keep_days": 0}
    run(connection, NOW, **settings)
    late = dt.datetime.combine(day(13, NOW), dt.time(3), dt.UTC)
    connection.execute("SELECT ensure_reading_partitions(%s::date[])", ([day(13, NOW)],))
    connection.execute("INSERT INTO reading VALUES (%s, 1, 5, 64)", (late,))
    connection.execute("UPDATE stream_cursor SET seq = seq + 1, stored = stored + 1")
    (step,) = run(connection, NOW, **settings).steps
    assert step.note == "1 of 73 readings are not in rollup_minute"
    for table in ("rollup_minute", "rollup_hour"):
        connection.execute(f"INSERT INTO {table} VALUES (%s, 1, 1, 1, 5, 5, 5, 5, 5, %s, %s)".encode(), (late,) * 3)
    assert told(run(connection, NOW, **settings)) == [("reading", "drop", "done")]
    assert is_balanced(connection)


def test_a_clock_that_jumps_ahead_drops_nothing(connection: Connection) -> None:
    """Age is measured from the newest reading when the clock is ahead of it."""
    fill(connection, [day(ago, NOW) for ago in range(9)])
    for jump_days in (2, 400, 4_000):
        assert (
            run(connection, NOW + dt.timedelta(days=jump_days), reading_keep_days=10, minute_keep_days=10).steps == []
        )
    assert len(days_there(connection)) == 9


def test_more_than_a_run_may_drop_is_refused_whole(connection: Connection) -> None:
    """Clock and newest reading are wrong together: devices took their time from the same source."""
    fill(connection, [day(ago, NOW) for ago in range(6)])
    wrong = NOW + dt.timedelta(days=365)
    fill(connection, [wrong.date()])
    settings = {"reading_keep_days": 10, "minute_keep_days": 0, "drop_days_max": 5}
    for dry in (True, False):
        (step,) = run(connection, wrong, dry=dry, **settings).steps
        assert step.outcome == "too much at once"
        assert "6 days would go, at most 5" in step.note
    assert len(days_there(connection)) == 7
    assert told(run(connection, wrong, large=True, **settings)) == [("reading", "drop", "done")] * 6


def test_without_readings_nothing_is_old(connection: Connection) -> None:
    connection.execute("SELECT ensure_reading_partitions(ARRAY['2020-01-01'::date])")
    done = run(connection, NOW)
    assert (done.steps, done.reference) == ([], None)


def test_old_dead_letters_and_notes_go_and_are_booked(connection: Connection) -> None:
    fill(connection, [day(0, NOW)])
    letter = """INSERT INTO dead_letter (at, last_at, topic, seq, records, reason, place, detail, payload, digest)
                VALUES (%s, %s, 't', 1, 3, 'r', 'p', 'd', 'xyz', '')"""
    for ago in (500, 450, 1):
        at = NOW - dt.timedelta(days=ago)
        connection.execute(letter, (at, at))
        connection.execute("INSERT INTO gateway_note VALUES ('gw', 'alarm', 1, %s, %s, 'clock', '{}')", (ago, at))
    connection.execute(
        "INSERT INTO stream_cursor (gateway, stream, epoch, seq, dead_lettered, noted) VALUES ('gw', 'alarm', 1, 12, 9, 3)"
    )
    assert is_balanced(connection)
    holds.place(connection, NOW - dt.timedelta(days=451), NOW - dt.timedelta(days=449), reason="r", actor="a")
    assert told(run(connection, NOW)) == [("dead_letter", "delete", "done")]
    assert connection.execute("SELECT tbl, rows, records FROM retired").fetchall() == [("dead_letter", 1, 3)]
    assert is_balanced(connection)
    assert told(run(connection, NOW, note_keep_days=400)) == [("gateway_note", "delete", "done")]
    assert connection.execute("SELECT count(*) FROM gateway_note").fetchone() == (2,)
    assert is_balanced(connection)
    assert run(connection, NOW, note_keep_days=400).steps == []


def test_a_redriven_letter_goes_as_what_it_became_and_one_that_is_asked_for_stays(connection: Connection) -> None:
    fill(connection, [day(0, NOW)])
    at = NOW - dt.timedelta(days=500)
    letter = """INSERT INTO dead_letter (at, last_at, topic, seq, records, reason, place, detail, payload, digest, redriven_at)
                VALUES (%s, %s, 't', 1, 3, 'r', 'p', 'd', 'xyz', '', %s) RETURNING id"""
    for redriven_at in (at, None):
        connection.execute(letter, (at, at, redriven_at))
    waiting = connection.execute(letter, (at, at, None)).fetchone()
    ask = "INSERT INTO dead_letter_redrive (letter_id, shard, asked_by) VALUES (%s, 0, 'ann')"
    connection.execute(ask, waiting)
    connection.execute(
        "INSERT INTO stream_cursor (gateway, stream, epoch, seq, dead_lettered) VALUES ('gw', 'alarm', 1, 6, 6)"
    )
    assert is_balanced(connection)
    assert told(run(connection, NOW)) == [("dead_letter", "delete", "done")]
    assert connection.execute("SELECT rows, records FROM retired").fetchall() == [(2, 3)]
    assert connection.execute("SELECT id FROM dead_letter").fetchall() == [waiting]
    assert is_balanced(connection)


def test_two_runs_at_once_are_refused(connection: Connection, other: Connection) -> None:
    other.execute("SELECT pg_advisory_lock(hashtext('citynet.maintenance'))")
    with pytest.raises(CitynetError, match="another run of maintenance"):
        run(connection, NOW)
    assert run(connection, NOW, dry=True).steps == []
    other.execute("SELECT pg_advisory_unlock_all()")
    run(connection, NOW)
    run(connection, NOW)


def test_a_table_that_is_never_free_is_left_to_the_next_run(connection: Connection, other: Connection) -> None:
    fill(connection, [day(13, NOW), day(0, NOW)])
    settings = {"reading_keep_days": 10, "minute_keep_days": 0, "lock_wait_s": 0.05, "lock_tries": 2}
    with other.transaction(force_rollback=True):
        other.execute("INSERT INTO reading VALUES (%s, 1, 1, 0)", (NOW,))
        (step,) = run(connection, NOW, **settings).steps
        assert step.outcome == "busy"
        other.execute("INSERT INTO reading VALUES (%s, 1, 1, 0)", (NOW - dt.timedelta(days=13),))
    patient = settings | {"lock_wait_s": 30}  # autovacuum may be at it
    assert told(run(connection, NOW, **patient)) == [("reading", "drop", "done")]
    assert is_balanced(connection)


def test_policies_of_timescaledb_follow_the_settings(connection: Connection) -> None:
    if probe(connection).timescale is None:
        pytest.skip("TimescaleDB only")
    assert run(connection, NOW).steps == [], "a fresh schema is as the defaults want it"
    wanted = {"reading_chunk_hours": 12, "reading_columnstore_after_hours": 36, "hour_columnstore_after_hours": 0}
    connection.execute("SELECT add_retention_policy('rollup_minute', interval '1 day')")
    expected = [
        ("reading", "chunk interval", "1 d", "12 h"),
        ("reading", "columnstore after", "1 d", "36 h"),
        ("rollup_minute", "retention job of TimescaleDB", "1 d", "none"),
        ("rollup_hour", "columnstore after", "90 d", "never"),
    ]
    done = run(connection, NOW, **wanted)
    assert [(step.table, str(step.what), step.now, step.wanted) for step in done.steps] == expected
    assert {str(step.outcome) for step in done.steps} == {"done"}
    assert run(connection, NOW, **wanted).steps == []
    assert [step.wanted for step in run(connection, NOW).steps] == ["1 d", "1 d", "90 d"]


def test_the_columnstore_policy_takes_old_rows_and_late_ones(connection: Connection) -> None:
    server = probe(connection)
    if server.timescale is None:
        pytest.skip("TimescaleDB only")
    now = dt.datetime.now(dt.UTC)
    fill(connection, [day(5, now), day(0, now)])
    run(connection, now, reading_columnstore_after_hours=48)
    job = "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'reading'"
    (number,) = connection.execute(job.encode()).fetchone() or (0,)
    late = dt.datetime.combine(day(5, now), dt.time(3, 30), dt.UTC)
    for expected in (PER_DAY, PER_DAY + 1):
        connection.execute(f"CALL run_job({number})".encode())
        old, *newer = (part for part in parts(connection, server) if part.table == "reading")
        assert [part.is_columnstore for part in (old, *newer)] == [True, *(False for _ in newer)]
        assert newer
        (rows,) = connection.execute(SQL("SELECT count(*) FROM {}").format(old.identifier)).fetchone() or (0,)
        assert rows == expected
        beside = connection.execute(SQL("SELECT count(*) FROM ONLY {}").format(old.identifier)).fetchone()
        assert beside == (0,), "no row is left beside the columnstore"
        connection.execute("INSERT INTO reading VALUES (%s, 1, 5, 64)", (late,))
        assert connection.execute("SELECT count(*) FROM reading WHERE time = %s", (late,)).fetchone() == (
            expected - PER_DAY + 1,
        )
