"""Row 10 of the test matrix: the database stops, dies, turns read-only, fills its disk, or loses the connection in the middle
of COMMIT. No acknowledgement before COMMIT, nothing lost or doubled, memory flat, and the broker never notices."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from citynet import topics, wire
from citynet.reading import Reading
from citynet.runtime.child import free_port
from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from citynet_ingest.store.migrate import migrate
from tests.faults import load
from tests.faults.harness import CLEAN, Ledger, LedgerPeer, assert_balanced, judge, last_for, wait_logged
from tests.faults.outages import OUTAGES
from tests.faults.proxy import Proxy, port_of
from tests.ingest import GatewayPeer, ingest_running, query, wait_for

OUTAGE_S = 1.5
UNDERWAY_S = 0.5  # answers that were handed to the broker, until it has read them
TERMINATIONS = 8
TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'citynet-ingest-%'"""
# While all that may be in flight waits: 120 MiB measured; without that bound 257 with QoS 1, and 350 with QoS 0.
GROWTH_BYTES_MAX = 150 << 20
COMMIT_BYTES_MAX = 50 << 20  # besides, as soon as a commit of it is written and the next planned: 17 to 36 measured
FLOOD_BYTES = 64 << 20
EACH = 5_000  # readings in a batch of it
KEEP_ALIVE_S, KEEP_ALIVES = 2, 3  # a broker waits one and a half


def test_outages(folder: Path, broker: EmbeddedMosquitto, database: EmbeddedPostgres, seed: int) -> None:
    """One after the other under load. While the database is away nothing is acknowledged, and the broker sees no reconnect."""
    rng = random.Random(seed)
    ledger, port = Ledger(folder / "gateway.ledger"), free_port()
    with (
        ingest_running(folder, broker, database.dsn(), {"keep_alive_s": 2, "metrics_port": port}) as ingest,
        LedgerPeer(broker.port, "gw-1", ledger) as peer,
    ):
        for name, (fail, heal) in OUTAGES.items():
            peer.accept_until(load.plain(rng, f"gas-{name}", 6000, load.minutes_ago(10)), rng.randrange(100, 1000))
            losses = ingest.log.read_text().count('"database-lost"')
            fail(database)
            wait_logged(ingest, "database-lost", losses + 1)
            wait_for(lambda: all_answered(port), "the last commit that went through is answered")
            last_for(UNDERWAY_S)
            peer.hear_out()
            peer.accept(load.plain(rng, f"gas-{name}-away", 100, load.minutes_ago(10)))
            acked = peer.acked
            last_for(OUTAGE_S)
            assert peer.acked == acked < len(ledger.readings), f"acknowledged while the database was {name}"
            heal(database)
            peer.wait_drained()
        assert ingest.log.read_text().count("broker-connected") == 1, "the broker was never left"
        assert ingest.stop() == 0, ingest.tail()
    assert judge([ledger], database.dsn()) == CLEAN
    assert_balanced(database.dsn())


def all_answered(port: int) -> bool:
    """Whether ingest has written the answers of all its commits; they are counted after that, commits before."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    names = "citynet_ingest_commits_total", r'citynet_ingest_stage_seconds_count\{stage="ack"\}'
    commits, answered = (float(re.search(rf"^{name} (\S+)$", text, re.M)[1]) for name in names)  # type: ignore[index]
    return answered >= commits


def flood(client: GatewayPeer, total: int, qos: int) -> None:
    """Publish about `total` bytes of telemetry batches. Encoded once: further ones differ in their numbers and their time."""
    start_us = load.minutes_ago(10)
    some = [Reading("gas-1", "plain", start_us + k * 1000 + k * k % 977, k / 7) for k in range(EACH)]
    marks = 0x5EA1_0000_0000_0001, 0x5EA1_0000_0000_0002, start_us  # eight bytes each, and nowhere else
    body = bytearray(wire.encode(wire.Header(client.gateway, wire.TELEMETRY, 1, marks[0], EACH, marks[1]), some))
    places = [body.index(mark.to_bytes(8, "big")) for mark in marks]
    for before in range(0, EACH * (total // len(body) + 1), EACH):
        for place, value in zip(places, (before + 1, before + EACH, start_us + before * 1000), strict=True):
            body[place : place + 8] = value.to_bytes(8, "big")
        client.publish(topics.up(client.gateway), bytes(body), qos=qos, wait=False)


@pytest.mark.parametrize("qos", [1, 0])
def test_memory_is_flat_and_the_broker_is_kept(qos: int, folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    """A flood as large as the bound on bytes in flight (and several times larger once decoded) comes while the database is
    away, for several keep-alives. With QoS 0 no receive maximum holds it back: ingest must not swallow it all the same."""
    with (
        Proxy(port_of(dsn)) as proxy,
        ingest_running(folder, broker, make_conninfo(dsn, port=proxy.port), {"keep_alive_s": KEEP_ALIVE_S}) as ingest,
    ):
        peer = GatewayPeer(broker.port)
        try:
            memory = psutil.Process(ingest.running.pid).memory_info
            peer.send(1, [Reading("gas-0", "plain", load.minutes_ago(10), 1.0)], epoch=2)
            peer.wait_acked(1, epoch=2)
            before = memory().rss
            proxy.stop()
            started = time.monotonic()
            flood(peer, FLOOD_BYTES, qos)
            highest = 0
            while time.monotonic() < started + KEEP_ALIVES * KEEP_ALIVE_S or highest == 0:
                highest = max(highest, memory().rss)
                last_for(0.02)
            print(f"QoS {qos}: memory grew by {(highest - before) >> 20} MiB")
            assert peer.acked() == 0
            assert highest - before < GROWTH_BYTES_MAX
            proxy.start()
            wait_for(lambda: query(dsn, "SELECT 1 FROM stream_cursor WHERE epoch = 1"), "it goes on")
            assert memory().rss - before < GROWTH_BYTES_MAX + COMMIT_BYTES_MAX
            assert ingest.log.read_text().count("broker-connected") == 1, "the broker was never left"
        finally:
            peer.close()
        ingest.kill()
    assert_balanced(dsn, is_drained=False)


@pytest.mark.parametrize("is_done", [True, False], ids=["done", "not-done"])
def test_connection_lost_in_the_middle_of_commit(
    is_done: bool, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    """Whether COMMIT reached the server or not, the client cannot tell; the commit number does."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with (
        Proxy(port_of(dsn)) as proxy,
        ingest_running(folder, broker, make_conninfo(dsn, port=proxy.port)) as ingest,
        LedgerPeer(broker.port, "gw-1", ledger) as peer,
    ):
        for cut in range(1, 6):
            proxy.cut_at(b"COMMIT", forward=is_done)
            peer.accept(load.plain(rng, f"gas-{cut}", 300, load.minutes_ago(10)))
            proxy.wait_cut(cut)
            peer.wait_drained()
        for cut in range(6, 12):
            proxy.cut_after(rng.randrange(1, 30_000))
            peer.accept(load.plain(rng, f"gas-{cut}", 900, load.minutes_ago(10)))
            proxy.wait_cut(cut)
            peer.wait_drained()
        assert ingest.stop() == 0, ingest.tail()
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


def test_sessions_terminated_under_load(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    """An administrator, or a proxy that moves sessions about, ends ours again and again, whatever it is doing."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    ended = 0
    with (
        ingest_running(folder, broker, dsn) as ingest,
        LedgerPeer(broker.port, "gw-1", ledger, batch=50) as peer,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        while ended < TERMINATIONS:
            more = 200 if len(ledger.readings) - peer.acked < 500 else 0
            some = load.plain(rng, "gas-1", more, load.minutes_ago(10) + len(ledger.readings) * 1000)
            peer.accept_until(some, rng.randrange(1, 200))
            ended += len(connection.execute(TERMINATE).fetchall())
        peer.wait_drained()
        assert ingest.log.read_text().count("broker-connected") == 1, "the broker was never left"
        assert ingest.stop() == 0, ingest.tail()
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


def test_the_server_still_believes_in_the_lost_connection(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    """It holds our shards' locks until it notices; that is no reason for a worker to give up."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with (
        Proxy(port_of(dsn)) as proxy,
        ingest_running(folder, broker, make_conninfo(dsn, port=proxy.port)) as ingest,
        LedgerPeer(broker.port, "gw-1", ledger) as peer,
    ):
        peer.accept(load.plain(rng, "gas-1", 300, load.minutes_ago(10)))
        peer.wait_drained()
        proxy.orphan()
        peer.accept(load.plain(rng, "gas-2", 300, load.minutes_ago(10)))
        wait_logged(ingest, "database-lost")
        last_for(4.0)  # longer than a start waits for a predecessor's connection
        assert ingest.running.poll() is None, ingest.tail()
        proxy.release()
        peer.wait_drained()
        assert ingest.stop() == 0, ingest.tail()
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of a fixed size; skips where we may not mount one."""
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a file system of limited size needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "tmpfs", str(path)], check=False)
    if made.returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_disk_full(folder: Path, broker: EmbeddedMosquitto, seed: int) -> None:
    """The disk fills under load; when there is room again everything goes on, and nothing was acknowledged for nothing."""
    rng = random.Random(seed)
    with (
        small_disk(folder / "disk", "192m"),
        EmbeddedPostgres(folder / "disk" / "db", {"max_wal_size": "64MB"}) as server,
    ):
        ledger = Ledger(folder / "gateway.ledger")  # only here: a skip above must leave nothing open
        migrate(server.dsn())
        ballast = folder / "disk" / "ballast"
        with (
            ingest_running(folder, broker, server.dsn()) as ingest,
            LedgerPeer(broker.port, "gw-1", ledger, window=20, batch=500) as peer,
        ):
            peer.accept(load.plain(rng, "gas-1", 500, load.minutes_ago(60)))
            peer.wait_drained()
            fill(ballast)
            peer.accept(load.plain(rng, "gas-2", 60_000, load.minutes_ago(60)))
            wait_logged(ingest, "database-lost")
            assert peer.acked < len(ledger.readings)
            ballast.unlink()
            if server.pid is None or not psutil.pid_exists(server.pid) or not answers(server):
                server.stop()
                server.start()
            peer.wait_drained()
            assert ingest.log.read_text().count("broker-connected") == 1, "the broker was never left"
            assert ingest.stop() == 0, ingest.tail()
        assert judge([ledger], server.dsn()) == CLEAN
        assert_balanced(server.dsn())


def fill(ballast: Path) -> None:
    """Take what is left of the file system but half a mebibyte, or all of it if the server writes meanwhile."""
    disk = os.statvfs(ballast.parent)
    left = max(0, disk.f_bavail * disk.f_frsize - (1 << 19))
    with ballast.open("wb", buffering=0) as file:
        while left > 0:
            try:
                left -= file.write(bytes(min(left, 1 << 20)))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                return


def answers(server: EmbeddedPostgres) -> bool:
    try:
        with psycopg.connect(server.dsn(), connect_timeout=5, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
