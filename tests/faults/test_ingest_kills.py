"""Row 2 of the test matrix: ingest is killed at each failpoint under load. Nothing is lost or doubled, and the alerts are
those of a run that nobody disturbed (law 5)."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from citynet.quality import LATE
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.store.migrate import migrate
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, assert_balanced, judge, wait_logged
from tests.ingest import IngestProcess, query, wait_for
from tests.seeds import seed_of

FAILPOINTS = ["before-begin", "mid-copy", "before-commit", "after-commit", "after-puback"]
HITS = range(4, 9)  # the first hits belong to the start; the load makes dozens
GAUGES, SECONDS, MESSAGES = 5, 240, 300
Alerts = tuple[list[tuple[object, ...]], list[tuple[object, ...]], int]  # alerts, transitions, readings called late


class Scene:
    """One seed's input, the same for every run of it: a gateway with watched gauges, and a device without a gateway."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        start_us = load.minutes_ago(10)
        self.seed = seed
        self.gauges: list[Reading] = load.watched(rng, GAUGES, SECONDS, start_us)
        self.direct: list[Reading] = load.plain(rng, "lift-1", MESSAGES, start_us)

    def run(self, dsn: str, failpoint: str = "", mutant: str = "") -> Alerts:
        """Play it, killing ingest (or a mutant of it) at `failpoint` (``name:hit``) if given; judge the delivery, return the
        alerts and how many readings came late: none did."""
        with a_folder() as folder, EmbeddedMosquitto(folder / "broker") as broker:
            settings = {
                "shipped_rules": False,
                "rules": [str(load.rule_file(folder))],
                "snapshot_s": 0.001 if mutant else 0.2,
            }
            process = IngestProcess(folder, broker.port, dsn, settings)
            process.start(failpoint=failpoint, mutant=mutant)
            try:
                process.wait_connected()
                self._play(process, broker, dsn, folder, is_killed=bool(failpoint))
            finally:
                if process.running.poll() is None:
                    process.kill()
        return *load.alerts(dsn), query(dsn, "SELECT count(*) FROM reading WHERE quality & %s > 0", LATE)[0][0]

    def _play(
        self, process: IngestProcess, broker: EmbeddedMosquitto, dsn: str, folder: Path, *, is_killed: bool
    ) -> None:
        gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
        with LedgerPeer(broker.port, "gw-1", gateway) as peer, DirectDevice(broker.port, "lift-1", device) as lift:
            # Accepted at once, so that the backlog says truly what is still to come: then watermarks keep their promise.
            peer.accept(self.gauges)
            # Commits of its own, one a second, may bring it to the failpoint before anybody is acknowledged.
            wait_for(lambda: peer.acked > 0 or process.running.poll() is not None, "the first acknowledgement")
            lift.say(self.direct)
            if is_killed:
                assert process.died() == -9, process.tail()
                process.start()
            lift.wait_taken()
            peer.wait_drained()
            wait_logged(process, "broker-connected", 2 if is_killed else 1)
            wait_for(lambda: query(dsn, "SELECT 1 FROM direct_tally WHERE stored >= %s", MESSAGES), "direct messages")
        assert process.stop() == 0, process.tail()
        assert judge([gateway, device], dsn) == CLEAN
        assert_balanced(dsn)


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="citynet-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(seed_of(__name__))


@pytest.fixture(scope="module")
def undisturbed(server_dsn: str, scene: Scene) -> Alerts:
    """Alerts and transitions of the run without a kill."""
    name = f"citynet_test_undisturbed_{secrets.token_hex(6)}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        dsn = make_conninfo(server_dsn, dbname=name)
        try:
            migrate(dsn)
            return scene.run(dsn)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_at_a_failpoint(failpoint: str, dsn: str, scene: Scene, undisturbed: Alerts) -> None:
    hit = random.Random(f"{scene.seed}/{failpoint}").choice(HITS)
    print(f"CITYNET_TEST_SEED={scene.seed} ingest.{failpoint}:{hit}")
    alerts, transitions, late = undisturbed
    assert len(alerts) >= 3, "the stream must raise something to compare"
    assert {row[1] for row in transitions} >= {"raise", "clear"}
    assert late == 0
    assert scene.run(dsn, f"ingest.{failpoint}:{hit}") == undisturbed


def test_the_scene_catches_a_snapshot_in_another_transaction(dsn: str, scene: Scene, undisturbed: Alerts) -> None:
    """The engine remembers what was never committed: what comes again looks late to it, and is not judged."""
    # There is a snapshot with every commit and tick. A tick's harms nobody, so it dies where only readings come by.
    found = scene.run(dsn, f"ingest.mid-copy:{HITS[1]}", "snapshot-in-another-transaction")
    assert found != undisturbed
