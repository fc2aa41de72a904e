"""Dead letters tried again: stored exactly once, whoever asks, however often, and wherever the worker is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from citynet import formats, topics, wire
from citynet.notes import RawNote
from citynet.quality import LATE
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults.harness import assert_balanced, wait_logged
from tests.ingest import GatewayPeer, ingest_running, letters, now_us, query, some_readings, stored, wait_for
from tests.patience import DEADLINE_S


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


def execute(dsn: str, text: str, *parameters: object) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text.encode(), parameters)


def refuse_threes(dsn: str) -> None:
    execute(dsn, "ALTER TABLE reading ADD CONSTRAINT sane CHECK (value <> 3)")


def allow_threes(dsn: str) -> None:
    execute(dsn, "ALTER TABLE reading DROP CONSTRAINT sane")


def test_a_refused_reading_is_stored_once_the_reason_is_gone(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    refuse_threes(dsn)
    readings = some_readings(50, now_us() - 600_000_000)  # value 3.0 is the seventh
    with ingest_running(folder, broker, dsn) as ingest:
        peer.send(1, readings)
        peer.wait_acked(50)
        status, told = letters(ingest, "redrive", "--reason", "refused-by-database")
        assert (status, told["redriven"], told["stored"]) == (1, 0, 0)
        assert told["failed"][0]["error"].startswith("refused-by-database at row: ")
        assert query(dsn, "SELECT reason, times, redrives FROM dead_letter") == [("refused-by-database", 1, 1)]
        assert_balanced(dsn)
        allow_threes(dsn)
        assert letters(ingest, "redrive", "--gateway", "gw-t")[1] == {
            "asked": 1, "redriven": 1, "stored": 1, "waiting": 0, "failed": [],
        }  # fmt: skip
        assert letters(ingest, "redrive", "--all")[1]["asked"] == 0, "a second time finds nothing to do"
        shown = letters(ingest, "show", str(query(dsn, "SELECT id FROM dead_letter")[0][0]))[1]
        assert (shown["redriven_stored"], shown["redrives"], shown["scope"]) == (1, 2, "reading")
        peer.send(51, [Reading("gas-1", "ch4_lel", now_us(), 9.0)])
        peer.wait_acked(51)
    assert [(value, quality) for _, _, value, quality in stored(dsn)][6] == (3.0, LATE), (
        "later readings were there before"
    )
    assert len(stored(dsn)) == 51
    assert query(dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(51, 51, 0)]
    assert_balanced(dsn)


def test_two_operators_at_once_and_a_request_before_the_worker_runs(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    refuse_threes(dsn)
    with ingest_running(folder, broker, dsn) as ingest:
        peer.send(1, [Reading("gas-1", "ch4_lel", now_us() + k, 3.0) for k in range(20)])
        peer.wait_acked(20)
        assert ingest.stop() == 0
    allow_threes(dsn)
    assert letters(ingest, "redrive", "--all", "--wait-s", "0")[1]["waiting"] == 20
    with ingest_running(folder, broker, dsn) as ingest:
        words = ["redrive", "--all", "--wait-s", str(DEADLINE_S), "--config", str(ingest.config)]
        command = [sys.executable, "-m", "citynet", "dead-letters", *words]
        operators = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
        assert [operator.wait(2 * DEADLINE_S) for operator in operators] == [0, 0, 0]
        wait_for(lambda: len(stored(dsn)) == 20, "everything is stored")
        assert ingest.stop() == 0
    assert len(stored(dsn)) == 20
    assert query(dsn, "SELECT count(*) FROM dead_letter_redrive") == [(0,)]
    assert_balanced(dsn)


@pytest.mark.parametrize(
    "failpoint", ["ingest.mid-redrive", "ingest.mid-copy", "ingest.before-commit:2", "ingest.after-commit:2"]
)
def test_killed_while_it_redrives(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str, failpoint: str
) -> None:
    """The reading of a gateway and the message of a direct device, each once."""
    refuse_threes(dsn)
    with ingest_running(folder, broker, dsn) as ingest:
        peer.send(1, [Reading("gas-1", "ch4_lel", now_us() + k, 3.0) for k in range(5)])
        peer.wait_acked(5)
        message = json.dumps({"ts": now_us() // 1000, "values": {"a": 3}})
        for _ in range(2):
            peer.publish(topics.dev("lift-1"), message.encode(), formats.THINGSBOARD)
        wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter WHERE times = 2"), "the device's letter, counted")
        assert ingest.stop() == 0
    allow_threes(dsn)
    letters(ingest, "redrive", "--all", "--wait-s", "0")
    ingest.start(failpoint=failpoint)
    assert ingest.died() == -9
    connections = ingest.log.read_text().count('"broker-connected"')
    ingest.start()
    wait_logged(ingest, "broker-connected", connections + 1)
    wait_for(
        lambda: query(dsn, "SELECT count(*) FROM dead_letter WHERE redriven_at IS NULL") == [(0,)], "all are redriven"
    )
    assert letters(ingest, "redrive", "--all")[1]["asked"] == 0
    assert ingest.stop() == 0
    assert len(stored(dsn)) == 6
    assert query(dsn, "SELECT stored, dead_lettered, duplicates FROM direct_tally") == [(1, 0, 1)]
    assert_balanced(dsn)


def test_a_wrong_content_type_of_direct_devices(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """The device says no content type and speaks SenML, the setting says ThingsBoard. One record is no number in either."""
    start_s = now_us() // 1_000_000
    pack = [
        {"bn": "lift-1/", "bt": start_s, "n": "a", "v": 1.5},
        {"n": "b", "v": 2.5},
        {"n": "c", "vs": "up"},
    ]
    with ingest_running(folder, broker, dsn, {"direct_content_type": formats.SENML_CBOR}) as ingest:
        peer.publish(topics.dev("lift-1"), json.dumps(pack).encode(), "")
        wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
        status, told = letters(ingest, "redrive", "--topic", topics.dev("lift-1"))
        assert (status, told["redriven"]) == (1, 0)
        assert ingest.stop() == 0
    with ingest_running(folder, broker, dsn, {"direct_content_type": formats.SENML}) as ingest:
        assert letters(ingest, "redrive", "--topic", topics.dev("lift-1"))[1]["stored"] == 2
        assert ingest.stop() == 0
    assert [(name, value) for name, _, value, _ in stored(dsn)] == [("lift-1/a", 1.5), ("lift-1/b", 2.5)]
    assert query(dsn, "SELECT reason, scope, redriven_at IS NULL FROM dead_letter ORDER BY id") == [
        ("bad-cbor", "message", False),
        ("not-a-number", "value", True),
    ]
    assert query(dsn, "SELECT stored, dead_lettered FROM direct_tally") == [(2, 1)]
    assert_balanced(dsn)


def test_of_a_message_that_was_partly_stored_only_the_missing_value_is_taken(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """The letter gets what a better decoder would have found in it: the good values must not double."""
    stamp = now_us() // 1000
    with ingest_running(folder, broker, dsn) as ingest:
        body = {"ts": stamp, "values": {"a": 1, "b": "2", "c": 3}}
        peer.publish(topics.dev("lift-1"), json.dumps(body).encode(), "")
        wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
        assert letters(ingest, "redrive", "--all")[1]["failed"][0]["error"] == "not-a-number at $.values.b: 2"
        body["values"] = {"a": 1, "b": 2, "c": 3}
        execute(dsn, "UPDATE dead_letter SET payload = %s", json.dumps(body).encode())
        assert letters(ingest, "redrive", "--all")[1]["stored"] == 1
        assert ingest.stop() == 0
    assert [(name, value) for name, _, value, _ in stored(dsn)] == [("lift-1/a", 1), ("lift-1/b", 2), ("lift-1/c", 3)]
    assert query(dsn, "SELECT stored, dead_lettered FROM direct_tally") == [(3, 0)]
    assert_balanced(dsn)


def test_a_batch_that_could_not_be_read_is_booked_under_its_own_numbers(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    start = now_us()
    readings = [*some_readings(3, start), Reading("gas-1", "ch4_lel", start + 10**13, 1.0)]
    header = wire.Header("gw-t", "telemetry", 1, 1, 5)
    notes = [
        (
            4,
            RawNote(
                "field/gw-t/pump-1", b'{"ts": %d, "values": {"p": 1, "q": 2}}' % (start // 1000), "bad-json at payload"
            ),
        )
    ]
    good = wire.encode(header, readings, notes, content_type=wire.JSON)
    broken = json.loads(good)
    broken["x"].pop()
    with ingest_running(folder, broker, dsn) as ingest:
        peer.publish(topics.up("gw-t"), json.dumps(broken).encode(), wire.JSON)
        peer.wait_acked(5)
        peer.send(6, some_readings(2, start + 20_000_000))
        peer.wait_acked(7)
        assert query(dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(7, 2, 5)]
        execute(dsn, "UPDATE dead_letter SET payload = %s", good)  # as a mended decoder would read it
        assert letters(ingest, "redrive", "--all")[1]["stored"] == 3
        assert query(dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(7, 5, 2)]
        assert_balanced(dsn)
        status, told = letters(ingest, "redrive", "--all")  # the absurd time stays, the raw note has become readable
        assert (status, told["redriven"], told["stored"], len(told["failed"])) == (1, 1, 2, 1)
        assert ingest.stop() == 0
    assert query(dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(7, 6, 1)]
    assert [name for name, *_ in stored(dsn)] == ["gas-1/ch4_lel"] * 5 + ["pump-1/p", "pump-1/q"]
    assert_balanced(dsn)


def test_a_batch_whose_numbers_were_unreadable_is_the_cursors_business(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """The gateway got no answer and sent it again when ingest could read it: then the letter gives nothing more."""
    start = now_us()
    first = wire.encode(wire.Header("gw-t", "telemetry", 1, 1, 3), some_readings(3, start))
    second = wire.encode(wire.Header("gw-t", "telemetry", 1, 4, 3), some_readings(3, start + 10_000_000))
    third = wire.encode(wire.Header("gw-t", "telemetry", 1, 9, 3), some_readings(3, start + 20_000_000))
    with ingest_running(folder, broker, dsn) as ingest:
        for body in (b"\xff1", b"\xff2", b"\xff3"):
            peer.publish(topics.up("gw-t"), body)
        wait_for(lambda: len(query(dsn, "SELECT 1 FROM dead_letter")) == 3, "dead letters")
        peer.publish(topics.up("gw-t"), first)
        peer.wait_acked(3)
        for body, mended in ((b"\xff1", first), (b"\xff2", second), (b"\xff3", third)):
            execute(dsn, "UPDATE dead_letter SET payload = %s WHERE payload = %s", mended, body)
        status, told = letters(ingest, "redrive", "--all")
        assert (status, told["redriven"], told["stored"]) == (1, 2, 3)
        assert told["failed"][0]["error"].startswith("gap at s0")
        peer.wait_acked(6)
        assert ingest.stop() == 0
    assert query(dsn, "SELECT seq, stored FROM stream_cursor") == [(6, 6)]
    assert len(stored(dsn)) == 6
    assert_balanced(dsn)


def test_the_same_poison_after_a_redrive_is_a_new_letter(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    body = b'{"ts": %d, "values": {"a": "x"}}' % (now_us() // 1000)
    with ingest_running(folder, broker, dsn) as ingest:
        peer.publish(topics.dev("lift-1"), body, "")
        wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
        execute(dsn, "UPDATE dead_letter SET payload = %s", body.replace(b'"x"', b"7"))
        assert letters(ingest, "redrive", "--all")[1]["stored"] == 1
        peer.publish(topics.dev("lift-1"), body, "")
        wait_for(lambda: len(query(dsn, "SELECT 1 FROM dead_letter")) == 2, "a letter of its own")
        assert ingest.stop() == 0
    assert_balanced(dsn)


def test_listing_in_pages_and_what_cannot_be_asked(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    with ingest_running(folder, broker, dsn) as ingest:
        for number in range(7):
            peer.publish(topics.dev(f"lift-{number}"), b"\xff", "")
        wait_for(lambda: len(query(dsn, "SELECT 1 FROM dead_letter")) == 7, "dead letters")
        seen: list[int] = []
        after = ["--after", str(2**62)]
        while after:
            page = letters(ingest, "list", "--limit", "3", "--since", "1h", *after)[1]
            seen += [item["id"] for item in page["items"]]
            after = ["--after", str(page["next"])] if page["next"] else []
        assert seen == sorted(seen, reverse=True)
        assert len(set(seen)) == 7
        assert letters(ingest, "list", "--topic", topics.dev("lift-3"))[1]["items"][0]["topic"] == topics.dev("lift-3")
        assert letters(ingest, "list", "--reason", "no-such")[1]["items"] == []
        assert letters(ingest, "show", str(seen[0]))[1]["payload_hex"] == "ff"
        command = [sys.executable, "-m", "citynet", "dead-letters", "redrive", "--config", str(ingest.config)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 2, "nothing named is a mistake"
