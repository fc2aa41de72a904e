"""Two commits at once, one being written and one planned on it (ADR 17): refusals, kills, lost connections and the order of
answers, on a real database."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from citynet import wire
from citynet_ingest.parcel import Parcel
from tests.faults.harness import assert_balanced
from tests.faults.pipelined_child import COMMITS, EACH, GATEWAY
from tests.ingest import now_us, query, stored
from tests.patience import DEADLINE_S
from tests.pipelined import Pipe, batch, blocked, cut, holding, message

REFUSE_THREES = "ALTER TABLE reading ADD CONSTRAINT sane CHECK (value <> 3)"
REFUSED = 3.0
TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'pipelined' AND datname = current_database()"""


@pytest.fixture
def pipe(dsn: str) -> Iterator[Pipe]:
    """With one commit behind it, so that nothing is unknown any more."""
    pipe = Pipe(dsn)
    pipe.give(batch(1, "gw-1", 1, [0.5]))
    pipe.settle()
    yield pipe
    pipe.close()


def values(dsn: str) -> list[float]:
    return [value for _, _, value, _ in stored(dsn)]


def test_the_next_commit_is_planned_while_one_is_written(pipe: Pipe) -> None:
    with holding(pipe.dsn):
        pipe.give(batch(2, "gw-1", 2, [2.0])).result(DEADLINE_S)
        blocked(pipe.dsn)
        waits = pipe.give(batch(3, "gw-1", 3, [4.0]))
        pipe.wait_planned("gw-1", 3)
        assert not waits.done(), "one in flight at most"
        assert pipe.told == [1]
    waits.result(DEADLINE_S)
    pipe.settle()
    assert pipe.told == [1, 2, 3]
    assert values(pipe.dsn) == [0.5, 2.0, 4.0]


def test_a_refusal_in_the_first_of_two_costs_only_its_reading(pipe: Pipe) -> None:
    """The second was planned on a state that never came to be: it is planned again, after the first and before the third."""
    with holding(pipe.dsn, REFUSE_THREES):
        pipe.give(batch(2, "gw-1", 2, [2.0, REFUSED, 2.5]), message(3, "lift-1", 7.0))
        pipe.give(batch(4, "gw-1", 5, [4.0, 5.0]))
        pipe.give(batch(5, "gw-1", 7, [6.0]))
        pipe.wait_planned("gw-1", 6)
    pipe.settle()
    assert pipe.told == [1, 2, 3, 4, 5]
    assert Counter(values(pipe.dsn)) == Counter([0.5, 2.0, 2.5, 7.0, 4.0, 5.0, 6.0])
    assert query(pipe.dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(7, 6, 1)]
    assert query(pipe.dsn, "SELECT seq, reason FROM dead_letter") == [(3, "refused-by-database")]
    assert_balanced(pipe.dsn)


def test_a_refusal_in_both(pipe: Pipe) -> None:
    with holding(pipe.dsn, REFUSE_THREES):
        pipe.give(batch(2, "gw-1", 2, [REFUSED, 2.5]))
        pipe.give(batch(3, "gw-1", 4, [4.0, REFUSED]), batch(4, "gw-1", 6, [6.0]))
        pipe.wait_planned("gw-1", 6)
    pipe.settle()
    assert pipe.told == [1, 2, 3, 4]
    assert values(pipe.dsn) == [0.5, 2.5, 4.0, 6.0]
    assert query(pipe.dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(6, 4, 2)]


def test_the_connection_is_cut_in_both(pipe: Pipe) -> None:
    second = psycopg.connect(pipe.dsn)
    asks = threading.Thread(target=lambda: second.execute("LOCK TABLE reading IN ACCESS EXCLUSIVE MODE"))
    with holding(pipe.dsn):
        pipe.give(batch(2, "gw-1", 2, [2.0]))
        pipe.give(batch(3, "gw-1", 3, [4.0]))
        pipe.wait_planned("gw-1", 3)
        cut(pipe.dsn)
        asks.start()  # gets its lock between the two: the writer's first stands before it, its second behind
        waiting = "SELECT count(*) = 2 FROM pg_locks WHERE relation = 'reading'::regclass AND NOT granted"
        waiting += " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        while not query(pipe.dsn, waiting)[0][0]:
            pass
    asks.join(DEADLINE_S)
    cut(pipe.dsn)
    assert pipe.told == [1, 2]
    second.close()
    pipe.settle()
    assert pipe.told == [1, 2, 3]
    assert values(pipe.dsn) == [0.5, 2.0, 4.0]
    assert_balanced(pipe.dsn)


COMMIT_WAITS = """
    CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER wait_here AFTER UPDATE ON stream_cursor DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_here()"""


def test_the_connection_is_lost_during_a_commit_that_goes_through(pipe: Pipe) -> None:
    """Only a second try looks whether the first has gone through; this one has."""
    query_once(pipe.dsn, COMMIT_WAITS)
    with holding(pipe.dsn, "SELECT pg_advisory_xact_lock(4711)"):
        pipe.give(batch(2, "gw-1", 2, [2.0]))
        pipe.give(batch(3, "gw-1", 3, [4.0]))
        pipe.wait_planned("gw-1", 3)
        blocked(pipe.dsn)
        assert pipe.committer.watchdog.check(is_over=True), "cut, as if the server were deaf"
    pipe.settle()
    assert pipe.told == [1, 2, 3]
    assert values(pipe.dsn) == [0.5, 2.0, 4.0]
    assert_balanced(pipe.dsn)


def test_what_needs_no_commit_is_answered_in_its_turn(pipe: Pipe) -> None:
    """A repeated batch: its acknowledgement says how far the commit in flight will have come."""
    with holding(pipe.dsn):
        again = batch(2, "gw-1", 2, [2.0, 2.5])
        pipe.give(again)
        waits = pipe.give(batch(3, "gw-1", 2, [2.0, 2.5]))
        blocked(pipe.dsn)
        assert not waits.done()
        assert pipe.told == [1]
    waits.result(DEADLINE_S)
    assert pipe.told == [1, 2, 3]
    assert len(values(pipe.dsn)) == 3


def test_what_is_remembered_in_the_commit_in_flight_is_known_to_the_next(pipe: Pipe) -> None:
    """Message keys, receipts, new series and new cursors: some are looked up, and must not be looked up too early."""
    for number in range(20):
        first = 10 + 10 * number
        pipe.give(message(first, "lift-1", number + 0.5, key=f"k{number}"), message(first + 1, f"lift-{number}", 1.0))
        pipe.give(message(first + 2, "lift-1", number + 0.5, key=f"k{number}"))
        pipe.give(message(first + 1, f"lift-{number}", 1.0, again=True))
        pipe.give(batch(first + 3, f"gw-new-{number}", 1, [float(number)]))
        pipe.give(batch(first + 4, f"gw-new-{number}", 1, [float(number)]))
    pipe.settle()
    assert len(values(pipe.dsn)) == 1 + 3 * 20
    assert query(pipe.dsn, "SELECT stored, duplicates FROM direct_tally") == [(40, 40)]
    assert_balanced(pipe.dsn)


def test_a_stop_keeps_what_was_planned(pipe: Pipe) -> None:
    """The last snapshot must not know readings that were never committed: they would be late when they come again."""
    with holding(pipe.dsn):
        pipe.give(batch(2, "gw-1", 2, [2.0]))
        pipe.give(batch(3, "gw-1", 3, [4.0]))
        pipe.wait_planned("gw-1", 3)
        pipe.committer.stopping.set()
    pipe.call(pipe.committer.flush)
    assert pipe.told == [1, 2, 3]
    pipe.close()
    heir = Pipe(pipe.dsn)
    heir.give(batch(4, "gw-1", 4, [6.0]))
    heir.settle()
    heir.close()
    assert [(value, quality) for _, _, value, quality in stored(pipe.dsn)] == [(0.5, 0), (2.0, 0), (4.0, 0), (6.0, 0)]


@pytest.mark.parametrize(
    ("failpoint", "durable"), [("before-begin:3", 1), ("mid-copy:2", 1), ("before-commit:3", 1), ("after-commit:3", 2)]
)
def test_killed_with_a_second_commit_planned(failpoint: str, durable: int, dsn: str) -> None:
    """The start's own commit is the first to reach a failpoint (it has no rows), the one that makes all known the second."""
    start_us = now_us() - 3_600_000_000
    environment = {
        **os.environ,
        "CITYNET_FAILPOINT": f"ingest.{failpoint}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "tests.faults.pipelined_child", dsn, str(start_us)]
    child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=DEADLINE_S, check=False)
    assert child.returncode == -9
    told = [line for line in child.stdout.decode().splitlines() if line.startswith("told")]
    assert told == ["told 10"], "the one that was killed was not told, whatever became of it"
    assert query(dsn, "SELECT seq FROM stream_cursor") == [(durable * EACH,)]
    pipe = Pipe(dsn)
    for number in range(1, COMMITS):
        pipe.give(batch(number, GATEWAY, number * EACH + 1, [float(number)] * EACH, start_us))
    pipe.settle()
    pipe.stop()
    assert [(value, quality) for _, _, value, quality in stored(dsn)] == [
        (float(number), 0) for number in range(COMMITS) for _ in range(EACH)
    ]
    assert query(dsn, "SELECT seq, stored FROM stream_cursor") == [(COMMITS * EACH, COMMITS * EACH)]
    assert_balanced(dsn)


def test_killed_while_the_database_keeps_it_waiting(dsn: str) -> None:
    """The server looks only now and then whether somebody still waits for its statement, and the lanes are taken until it
    does: that is sooner than the next start gives up."""
    command = [sys.executable, "-m", "tests.faults.pipelined_child", dsn, str(now_us() - 3_600_000_000)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with holding(dsn, "LOCK TABLE reading IN SHARE MODE"):
        child = subprocess.Popen(command, env=environment)
        try:
            blocked(dsn)
        finally:
            child.kill()
            child.wait()
        pipe = Pipe(dsn)
    pipe.give(batch(1, "gw-1", 1, [0.5]))
    pipe.settle()
    pipe.stop()
    assert pipe.told == [1]
    assert values(dsn) == [0.5]


def test_any_schedule(dsn: str, seed: int) -> None:
    """A model: gateways and devices that repeat, skip and send what the database refuses, commits of any cut, ticks, stops and
    connections that end, all without waiting; told in order, stored once."""
    rng = random.Random(seed)
    query_once(dsn, REFUSE_THREES)
    start_us = now_us() - 3_600_000_000
    pipe, packet_ids, expected, given = Pipe(dsn, snapshot_s=0.02), count(1), Counter[tuple[str, float]](), []
    reached, refused = dict.fromkeys(("gw-1", "gw-2", "gw-3"), 0), Counter[str]()
    for _ in range(150):
        parcels: list[Parcel] = []
        for _ in range(rng.choice((1, 1, 2, 5))):
            packet_id, gateway = next(packet_ids), rng.choice(list(reached))
            given.append(packet_id)
            if rng.random() < 0.2:
                value = packet_id + 0.5
                parcels.append(
                    message(packet_id, "lift-1", value, key=f"key-{packet_id}" if rng.random() < 0.3 else "")
                )
                expected["lift-1/x", value] += 1
                continue
            seq0 = max(1, reached[gateway] + rng.choice((1, 1, 1, 1, 0, -3, 3)))
            sent = [
                REFUSED if truth(gateway, seq) else float(seq * 10) for seq in range(seq0, seq0 + rng.randint(1, 8))
            ]
            parcels.append(batch(packet_id, gateway, seq0, sent, start_us))
            if seq0 <= reached[gateway] + 1:
                for seq in range(reached[gateway] + 1, seq0 + len(sent)):
                    if truth(gateway, seq):
                        refused[gateway] += 1
                    else:
                        expected[f"{gateway}-d/x", float(seq * 10)] += 1
                reached[gateway] = max(reached[gateway], seq0 + len(sent) - 1)
        pipe.give(*parcels)
        if rng.random() < 0.1:
            pipe.call(pipe.committer.tick, now_us(), is_drained=True)
        elif rng.random() < 0.05:
            query(dsn, TERMINATE)
        elif rng.random() < 0.03:
            pipe.settle()
            told = pipe.told
            pipe.stop()
            pipe = Pipe(dsn, snapshot_s=0.02)
            pipe.told = told
    pipe.settle()
    pipe.stop()
    assert pipe.told == given
    assert Counter((name, value) for name, _, value, _ in stored(dsn)) == expected
    assert {quality for name, _, _, quality in stored(dsn) if name != "lift-1/x"} == {0}, "nothing came late"
    booked = query(dsn, "SELECT gateway, seq, dead_lettered FROM stream_cursor WHERE stream = %s", wire.TELEMETRY)
    assert booked == [(gateway, reached[gateway], refused[gateway]) for gateway, *_ in booked]
    assert_balanced(dsn)


def truth(gateway: str, seq: int) -> bool:
    """Whether the database refuses the reading of this number."""
    return (seq * 7 + len(gateway) + int(gateway[-1])) % 23 == 0


def query_once(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())
