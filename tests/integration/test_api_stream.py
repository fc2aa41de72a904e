"""The event stream: every transition once and in order, whatever breaks in between; and its bounds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from citynet.runtime.embedded import EmbeddedPostgres
from citynet_ingest.store.migrate import migrate
from tests.integration import api_seed
from tests.integration.api_harness import (
    OPERATOR,
    VIEWER,
    Listener,
    Served,
    add_tokens,
    as_,
    database,
    problem,
    served,
    until,
)
from tests.integration.api_seed import NOW
from tests.patience import DEADLINE_S, promptly


def prepare(dsn: str) -> int:
    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.add_rules(connection)
        return api_seed.add_series(connection, "gas-0001", "ch4_lel", unit="%LEL")


def raise_alerts(dsn: str, series: int, first: int, count: int) -> None:
    with database(dsn) as connection:
        for k in range(first, first + count):
            api_seed.add_alert(connection, "gas-ch4-void", f"gas-{k:04}", series, 1 + k % 4, NOW + timedelta(seconds=k))


def page(url: str) -> str:
    return httpx.get(url, timeout=DEADLINE_S).text


def stored_ids(dsn: str) -> list[int]:
    with database(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM alert_transition ORDER BY id").fetchall()]


def test_transitions_arrive_live_with_their_alert(dsn: str) -> None:
    series = prepare(dsn)
    raise_alerts(dsn, series, 0, 3)
    with served(dsn, stream_heartbeat_s=0.2) as server, Listener(server.url) as client:
        raise_alerts(dsn, series, 10, 1)
        until(lambda: len(client.ids) == 1, "the new transition")
        event = client.events[-1]
        assert event["data"]["transition"]["kind"] == "raise"
        assert event["data"]["alert"]["object"] == "gas-0010"
        assert int(event["id"]) == event["data"]["transition"]["id"] == stored_ids(dsn)[-1]
        answer = httpx.post(
            f"{server.url}/v1/alerts/{event['data']['alert']['id']}/ack",
            json={"comment": "on it"},
            headers=as_(OPERATOR),
            timeout=DEADLINE_S,
        )
        assert answer.status_code == 200
        until(lambda: len(client.ids) == 2, "the acknowledgement")
        assert client.events[-1]["data"]["transition"]["actor"] == "olga"
        assert client.events[-1]["data"]["alert"]["acked_by"] == "olga"
        until(lambda: client.comments >= 3, "heartbeats")


def test_a_notification_wakes_the_stream_and_its_loss_costs_only_the_polling_interval(dsn: str) -> None:
    series = prepare(dsn)
    with served(dsn, stream_poll_s=60) as server, Listener(server.url) as client:
        end_s = time.monotonic() + 119  # by polling, the second and the third would come a minute apart
        for count in range(3):
            raise_alerts(dsn, series, count, 1)
            until(lambda: len(client.ids) > count, "woken by the notification", end_s - time.monotonic())  # noqa: B023
    with served(dsn, stream_poll_s=0.3) as server, Listener(server.url) as client, database(dsn) as connection:
        with connection.transaction():  # as if the notification got lost
            connection.execute("SELECT lock_transitions()")
            name = api_seed.alert_id("gas-ch4-void", "gas-0000", NOW)
            api_seed.add_transition(connection, name, "escalate", 4, NOW, 60.0, 50.0, {})
        until(lambda: len(client.ids) == 1, "found by polling")


def test_resume_misses_nothing_and_repeats_nothing(dsn: str) -> None:
    series = prepare(dsn)
    raise_alerts(dsn, series, 0, 60)
    ids = stored_ids(dsn)
    # Pages of seven, so the history takes many; live transitions are committed while it is read.
    with served(dsn, stream_page=7) as server:
        writer = threading.Thread(target=raise_alerts, args=(dsn, series, 100, 60))
        writer.start()
        with Listener(server.url, after=ids[4]) as client:
            writer.join()
            until(lambda: len(client.ids) >= 115, "history and live")
            assert client.ids == stored_ids(dsn)[5:]
        with Listener(server.url, after=ids[-1] + 10**6) as client:  # an id of the future: begins at the newest
            assert client.events[0]["data"] == {"after": stored_ids(dsn)[-1]}
        by_parameter = {"after": stored_ids(dsn)[-3]}
        with httpx.stream(
            "GET", f"{server.url}/v1/alerts/stream", params=by_parameter, headers=as_(VIEWER), timeout=DEADLINE_S
        ) as response:
            lines = response.iter_lines()
            got = [next(line for line in lines if line.startswith("id: ")) for _ in range(3)]
        assert got == [f"id: {k}" for k in stored_ids(dsn)[-3:]]


def test_a_slow_client_is_cut_off_and_loses_nothing(dsn: str) -> None:
    series = prepare(dsn)
    with served(dsn, stream_queue_max=5, stream_send_timeout_s=1) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with Listener(server.url) as quick, socket.create_connection((host, int(port))) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(
                f"GET /v1/alerts/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {VIEWER}\r\n\r\n".encode()
            )
            metrics = f"{server.url}/metrics"
            until(lambda: "citynet_api_streams 2.0" in page(metrics), "both clients are there")
            until(
                lambda: "citynet_api_streams 1.0" in page(metrics) or flood(dsn, series),
                "the slow one is cut off",
            )
            until(lambda: client_has_all(quick, dsn), "the quick one has everything, if need be by resuming")
            assert "citynet_api_streams_cut_total 0.0" not in page(metrics)
    assert [line["event"] for line in server.lines] == ["listening", "stopped"], server.lines


_flooded = iter(range(10**6))


def flood(dsn: str, series: int) -> bool:
    """Thousands of transitions in one commit: more than any socket buffers."""
    k = 10_000 + next(_flooded)
    raise_alerts(dsn, series, k, 1)
    with database(dsn) as connection, connection.transaction():
        connection.execute("SELECT lock_transitions()")
        connection.execute(
            "INSERT INTO alert_transition (alert_id, kind, level, at, actor, comment)"
            " SELECT %s, 'ack', 1, now(), 'x', repeat('x', 4000) FROM generate_series(1, 500)",
            (api_seed.alert_id("gas-ch4-void", f"gas-{k:04}", NOW + timedelta(seconds=k)),),
        )
        connection.execute("NOTIFY citynet_alert")
    return False


def client_has_all(client: Listener, dsn: str) -> bool:
    return client.ids == stored_ids(dsn)


def test_clients_are_bounded(dsn: str) -> None:
    prepare(dsn)
    with served(dsn, stream_clients_max=2) as server:
        with Listener(server.url), Listener(server.url):
            refused = httpx.get(f"{server.url}/v1/alerts/stream", headers=as_(OPERATOR), timeout=DEADLINE_S)
            problem(refused, 503, "too-many-streams")
            assert refused.headers["retry-after"] == "10"
        until(lambda: "citynet_api_streams 0.0" in page(f"{server.url}/metrics"), "places are free again")
        with Listener(server.url):
            pass


def test_a_stream_ends_when_its_token_does(dsn: str) -> None:
    prepare(dsn)
    with served(dsn, stream_recheck_s=0.2, token_cache_s=0) as server, Listener(server.url) as client:
        with database(dsn) as connection:
            connection.execute("UPDATE api_token SET revoked_at = now() WHERE name = 'olga'")
        until(lambda: client.ended > 0, "the stream is ended")
        assert httpx.get(f"{server.url}/v1/alerts/stream", headers=as_(OPERATOR), timeout=DEADLINE_S).status_code == 401


def test_a_stop_is_quick_and_clean_with_streams_open(dsn: str) -> None:
    prepare(dsn)
    server = Served(dsn)
    until(lambda: httpx.get(f"{server.url}/ready", timeout=DEADLINE_S).status_code == 200, "ready")
    with Listener(server.url), Listener(server.url), promptly(3.0):
        assert server.stop() == 0
    events = [line["event"] for line in server.lines]
    assert events == ["listening", "stopped"], server.lines


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "citynet", "api", "run", "--port", str(port)]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert failed.returncode == 1
    assert failed.stderr == f"error: api: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.fixture
def own_server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A database server that the test may kill."""
    with EmbeddedPostgres(folder) as server:
        yield server


@pytest.mark.skipif(
    bool(os.environ.get("CITYNET_TEST_DSN")), reason="kills its own embedded server, whatever the suite runs on"
)
def test_a_killed_and_restarted_database_costs_the_stream_nothing(own_server: EmbeddedPostgres) -> None:
    dsn = own_server.dsn()
    migrate(dsn)
    series = prepare(dsn)
    with served(dsn, stream_poll_s=0.3, pool_wait_s=0.5) as server, Listener(server.url) as client:
        raise_alerts(dsn, series, 0, 5)
        until(lambda: client.ids == stored_ids(dsn), "live before")
        own_server.kill()
        until(
            lambda: any(lost(event) for event in list(client.events)), "the clients are told that the database is away"
        )
        assert httpx.get(f"{server.url}/ready", timeout=DEADLINE_S).status_code == 503
        assert httpx.get(f"{server.url}/health", timeout=DEADLINE_S).status_code == 200
        own_server.start()
        raise_alerts(dsn, series, 10, 5)
        until(lambda: client.ids == stored_ids(dsn), "everything, once, after the restart")
        # The end of the outage is told behind the transitions that were found at it.
        until(lambda: outages_told(client) == [False, True, False], "an outage and its end are told, once")
        until(lambda: httpx.get(f"{server.url}/ready", timeout=DEADLINE_S).status_code == 200, "ready again")
        # Half a second may be too short for a further connection to the database: then it is a 503.
        until(lambda: len(alerts(server)) == 10, "all alerts")
        assert client.connections == 1
    events = [line["event"] for line in server.lines]
    assert events.count("feed-lost") == events.count("feed-back") == 1


def alerts(server: Served) -> list[object]:
    """All alerts; none while they cannot be had."""
    answer = httpx.get(f"{server.url}/v1/alerts?state=all", headers=as_(VIEWER), timeout=DEADLINE_S)
    return list(answer.json().get("items", []))


def outages_told(client: Listener) -> list[bool]:
    """Whether each word about the database was of an outage."""
    return [lost(event) for event in list(client.events) if event["event"] == "database"]


def lost(event: dict[str, object]) -> bool:
    data = event["data"]
    return event["event"] == "database" and isinstance(data, dict) and data["lost_at"] is not None


def test_a_stream_that_cannot_go_on_ends_the_process(dsn: str) -> None:
    """Here by a transition of a kind that a later schema may know. Going on with heartbeats alone would look calm."""
    series = prepare(dsn)
    raise_alerts(dsn, series, 0, 1)
    with served(dsn) as server:
        metrics = f"{server.url}/metrics"
        position = f"citynet_api_feed_position {float(stored_ids(dsn)[-1])}"
        until(lambda: position in page(metrics), "it watches from there")
        with database(dsn) as connection:
            connection.execute("ALTER TABLE alert_transition DROP CONSTRAINT alert_transition_kind_check")
            connection.execute(
                "INSERT INTO alert_transition (alert_id, kind, level, at, actor)"
                " SELECT alert_id, 'foreseen', level, at, 'x' FROM alert_transition"
            )
            connection.execute("NOTIFY citynet_alert")
        assert server.process.wait(DEADLINE_S) == 1
    assert [line["event"] for line in server.lines] == ["listening", "watcher-failed", "text"], server.lines
    assert server.lines[-1]["text"] == "error: api: the watcher feed failed; the log has it\n"


def test_ctrl_c_stops_it_too(dsn: str) -> None:
    prepare(dsn)
    server = Served(dsn)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(DEADLINE_S) == 0
    server.stop()
