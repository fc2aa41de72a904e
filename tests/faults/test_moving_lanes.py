"""Shards move between workers, by stop and by kill, under load of both classes; rules go on; a zombie is fenced."""

from __future__ import annotations

import random
import signal
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.lanes import lane_of
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, assert_balanced, judge, last_for
from tests.ingest import GatewayPeer, IngestProcess, query, wait_for

DEALS = [["0-31", "32-63"], ["0-63"], ["0-7", "8-63"], ["0-39", "40-63"]]
GATEWAYS = ["gw-1", "gw-2", "gw-3"]
DEVICES = ["lift-1", "lift-2", "lift-3"]
STORED = "SELECT 1 FROM (SELECT sum(stored) AS n FROM direct_tally) AS t WHERE n >= %s"
NAMES_OF_BOTH_HALVES = {lane_of(name) // 4 for name in GATEWAYS}, {lane_of(name) // 4 for name in DEVICES}


class City:
    """A city whose shards are dealt anew again and again: one process for each range."""

    def __init__(self, folder: Path, port: int, dsn: str, settings: dict[str, object]) -> None:
        self._folder, self._port, self._dsn, self._settings = folder, port, dsn, settings
        self.workers: list[IngestProcess] = []
        self._count = 0

    def deal(self, ranges: list[str], *, wait: bool = True) -> None:
        for shards in ranges:
            self._count += 1
            folder = self._folder / f"worker-{self._count}"
            folder.mkdir()
            worker = IngestProcess(folder, self._port, self._dsn, {**self._settings, "shards": shards})
            worker.start()
            self.workers.append(worker)
        for worker in self.workers if wait else []:
            worker.wait_connected()

    def end(self, *, kill: bool) -> None:
        for worker in self.workers:
            assert worker.running.poll() is None, worker.tail()
            if kill:
                worker.kill()
        for worker in self.workers:
            # -SIGTERM: stopped while the program was still being loaded.
            assert kill or worker.stop() in (0, -signal.SIGTERM), worker.tail()
        self.workers = []

    def close(self) -> None:
        for worker in self.workers:
            if worker.running.poll() is None:
                worker.kill()


def test_lanes_move_under_load(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    """Nothing is lost or doubled: the queue and what is in flight go with the lane, and so do the receipts."""
    assert all(halves == {0, 1} for halves in NAMES_OF_BOTH_HALVES), "sources in the lanes of different workers"
    rng = random.Random(seed)
    start_us = load.minutes_ago(60)
    ledgers = {name: Ledger(folder / f"{name}.ledger") for name in [*GATEWAYS, *DEVICES]}
    city = City(folder, broker.port, dsn, {"snapshot_s": 0.5})
    with ExitStack() as stack:
        stack.callback(city.close)
        city.deal(["0-63"])
        peers = [stack.enter_context(LedgerPeer(broker.port, name, ledgers[name])) for name in GATEWAYS]
        lifts = [stack.enter_context(DirectDevice(broker.port, name, ledgers[name])) for name in DEVICES]

        def feed(count: int) -> None:
            for peer in peers:
                at_us = start_us + len(peer.ledger.readings) * 1000
                peer.accept(load.plain(rng, f"gas-{peer.gateway}", 10 * count, at_us))
            for lift in lifts:
                lift.say(load.plain(rng, lift.device, count, start_us + len(lift.ledger.readings) * 1000))

        feed(1)
        for peer in peers:
            peer.wait_acked(1)
        for position, ranges in enumerate(DEALS):
            feed(60)
            last_for(rng.uniform(0.0, 0.5))
            city.end(kill=position % 2 == 0)
            feed(30)  # nobody is there: the broker queues
            city.deal(ranges, wait=position % 2 == 1)  # or the next move hits the start
        for worker in city.workers:
            worker.wait_connected()
        for lift in lifts:
            lift.wait_taken()
        for peer in peers:
            peer.wait_drained()
        said = sum(len(ledgers[name].readings) for name in DEVICES)
        wait_for(lambda: query(dsn, STORED, said), "direct messages")
        city.end(kill=False)
    assert judge(list(ledgers.values()), dsn) == CLEAN
    assert_balanced(dsn)


def test_the_next_owner_knows_what_was_committed_and_not_acknowledged(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    """Killed between COMMIT and PUBACK: the broker sends it again to whoever opens the lane's session."""
    rng = random.Random(seed)
    start_us = load.minutes_ago(30)
    ledgers = {name: Ledger(folder / f"{name}.ledger") for name in DEVICES}
    city = City(folder, broker.port, dsn, {})
    first = IngestProcess(folder, broker.port, dsn)
    with ExitStack() as stack:
        stack.callback(city.close)
        first.start(failpoint="ingest.after-commit:6")  # the start is the first
        stack.callback(first.kill)
        first.wait_connected()
        lifts = [stack.enter_context(DirectDevice(broker.port, name, ledgers[name])) for name in DEVICES]
        while first.running.poll() is None:
            for lift in lifts:
                if lift.untaken < 20 and len(lift.ledger.readings) < 50_000:
                    lift.say(load.plain(rng, lift.device, 10, start_us + len(lift.ledger.readings) * 1000))
        assert first.died() == -9, first.tail()
        city.deal(["0-31", "32-63"])
        for lift in lifts:
            lift.wait_taken()
        said = sum(len(ledger.readings) for ledger in ledgers.values())
        wait_for(lambda: query(dsn, STORED, said), "direct messages")
        city.end(kill=False)
    assert judge(list(ledgers.values()), dsn) == CLEAN
    assert query(dsn, "SELECT sum(duplicates) > 0 FROM direct_tally") == [(True,)], "some did come again"
    assert_balanced(dsn)


def test_a_pending_and_an_open_alert_move_with_their_lane(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    """Two hours ago, so that only what moves can know of it: without a snapshot older conditions start afresh."""
    start_us = load.minutes_ago(120)
    settings: dict[str, object] = {"shipped_rules": False, "rules": [str(load.rule_file(folder))]}
    city = City(folder, broker.port, dsn, settings)
    peers = [GatewayPeer(broker.port, name) for name in GATEWAYS]

    def send(first: int, last: int, level: float) -> None:
        for peer in peers:
            times = [start_us + second * load.SECOND_US for second in range(first, last + 1)]
            peer.send(first + 1, [Reading(f"gauge-{peer.gateway}", "level_m", at_us, level) for at_us in times])
        for peer in peers:
            peer.wait_acked(last + 1)

    try:
        city.deal(["0-63"])
        send(0, 3, 1.5)  # high for 3 of 5 s
        city.end(kill=False)
        city.deal(["0-31", "32-63"])
        send(4, 8, 1.5)  # raised at 5 s
        city.end(kill=True)
        city.deal(["0-7", "8-63"])
        send(9, 12, 0.0)  # low for 3 of 10 s
        city.end(kill=False)
        city.deal(["0-63"])
        send(13, 40, 0.0)  # cleared at 19 s
        city.end(kill=False)
    finally:
        city.close()
        for peer in peers:
            peer.close()
    moves = query(
        dsn,
        "SELECT a.object, t.kind, ((extract(epoch FROM t.at) * 1000000)::bigint - %s) / 1000000 FROM alert_transition t"
        " JOIN alert a ON a.id = t.alert_id ORDER BY 1, 3",
        start_us,
    )
    assert moves == [(f"gauge-{name}", kind, at) for name in GATEWAYS for kind, at in (("raise", 5), ("clear", 19))]


@pytest.mark.parametrize("delivery", ["class-a", "class-b"])
def test_a_worker_that_wakes_after_others_worked_is_fenced(
    delivery: str, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    """It sleeps with messages in its hands, loses its database session, and wakes when the lanes are free again."""
    rng = random.Random(seed)
    start_us = load.minutes_ago(30)
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    city = City(folder, broker.port, dsn, {})
    with ExitStack() as stack:
        stack.callback(city.close)
        city.deal(["0-63"])
        peer = stack.enter_context(LedgerPeer(broker.port, "gw-1", gateway))
        lift = stack.enter_context(DirectDevice(broker.port, "lift-1", device))

        def feed() -> None:
            if delivery == "class-a":
                peer.accept(load.plain(rng, "gas-1", 50, start_us + len(gateway.readings) * 1000))
            else:
                lift.say(load.plain(rng, "lift-1", 50, start_us + len(device.readings) * 1000))

        peer.accept(load.plain(rng, "gas-0", 1, start_us))
        peer.wait_acked(1)
        (zombie,) = city.workers
        city.workers = []
        stack.callback(zombie.kill)
        zombie.running.send_signal(signal.SIGSTOP)
        feed()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'citynet-ingest-%' AND datname = current_database()"
            )
        city.deal(["0-31", "32-63"])
        feed()
        lift.wait_taken()
        peer.wait_drained()
        said = len(gateway.readings) + len(device.readings)
        wait_for(lambda: query(dsn, "SELECT 1 FROM reading HAVING count(*) >= %s", said), "all is stored")
        city.end(kill=False)
        zombie.running.send_signal(signal.SIGCONT)
        assert zombie.died() == 1, zombie.tail()
        assert "another ingest worker has taken our shards since" in zombie.tail()
        feed()
        city.deal(["0-63"])
        lift.wait_taken()
        peer.wait_drained()
        said = len(gateway.readings) + len(device.readings)
        wait_for(lambda: query(dsn, "SELECT 1 FROM reading HAVING count(*) >= %s", said), "all is stored")
        city.end(kill=False)
    assert judge([gateway, device], dsn) == CLEAN
    assert_balanced(dsn)
