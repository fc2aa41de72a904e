"""Row 8 of the test matrix: the network between gateway and broker, broker and ingest, ingest and database fails in every way a
network fails. Delivery resumes within 30 s of healing, without a storm of connections, and nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.lanes import LANES
from tests.faults import load
from tests.faults.harness import CLEAN, Ledger, LedgerPeer, assert_balanced, judge, last_for
from tests.faults.proxy import Proxy, port_of
from tests.ingest import IngestProcess, wait_for
from tests.patience import promptly

RESUME_S_MAX = 30.0
CONNECTIONS_MAX = 12  # a session and fault, with a pause that grows to 0.5 s on ingest's side and 1 s on the gateway's
KEEP_ALIVE_S = 2
SETTINGS = {"keep_alive_s": KEEP_ALIVE_S, "commit_statement_timeout_s": 1.0, "commit_timeout_s": 1.5}
SIDES = ["gateway", "ingest", "database"]
FLAPS = 5


def silence(proxy: Proxy) -> None:
    """Drop silently until somebody tries anew, which takes longer than the keep-alive or a commit may; then heal."""
    proxy.deaf()
    before = proxy.accepted
    wait_for(lambda: proxy.accepted > before, "the silence is noticed")
    proxy.heal()


def outage(proxy: Proxy) -> None:
    """Refuse connections for a while."""
    proxy.stop()
    last_for(2)
    proxy.start()


def flapping(proxy: Proxy) -> None:
    """Up for as long as it takes to connect, and gone again."""
    for _ in range(FLAPS):
        proxy.stop()
        last_for(0.1)
        before = proxy.accepted
        proxy.start()
        wait_for(lambda before=before: proxy.accepted > before, "somebody connects")


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "reset": Proxy.reset,
    "silent-drop": silence,
    "half-open": Proxy.half_open,
    "refused": outage,
    "flapping": flapping,
}


@contextmanager
def linked(
    sides: list[str], folder: Path, broker: EmbeddedMosquitto, dsn: str, ledger: Ledger
) -> Iterator[tuple[dict[str, Proxy], IngestProcess, LedgerPeer]]:
    """Gateway, broker, ingest and database with a proxy in each of these places."""
    with ExitStack() as stack:
        proxies = {
            side: stack.enter_context(Proxy(port_of(dsn) if side == "database" else broker.port)) for side in sides
        }
        ports = {side: proxy.port for side, proxy in proxies.items()}
        if "database" in ports:
            dsn = make_conninfo(dsn, port=ports["database"])
        ingest = IngestProcess(folder, ports.get("ingest", broker.port), dsn, SETTINGS)
        ingest.start()
        try:
            with LedgerPeer(ports.get("gateway", broker.port), "gw-1", ledger, keep_alive_s=KEEP_ALIVE_S) as peer:
                yield proxies, ingest, peer
            assert ingest.stop() == 0, ingest.tail()
        finally:
            if ingest.running.poll() is None:
                ingest.kill()


@pytest.mark.parametrize("side", SIDES)
def test_partition(side: str, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with linked([side], folder, broker, dsn, ledger) as (proxies, _, peer):
        proxy = proxies[side]
        for name, fault in FAULTS.items():
            peer.accept_until(load.plain(rng, f"gas-{name}", 1500, load.minutes_ago(10)), rng.randrange(100, 700))
            before = proxy.accepted
            fault(proxy)
            wait_for(lambda seen=before: proxy.accepted > seen, "somebody notices")  # type: ignore[misc]
            started = time.monotonic()
            with promptly(RESUME_S_MAX):
                peer.wait_drained()
            print(f"{side}: {name} resumed and drained in {time.monotonic() - started:.1f} s")
            sessions = LANES if side == "ingest" else 1
            assert proxy.accepted - before <= CONNECTIONS_MAX * sessions, name
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_everything_flaps_for_minutes(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    """Faults of every kind in all three places at once, in any order, for 300 s."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    faults = 0
    with linked(SIDES, folder, broker, dsn, ledger) as (proxies, _, peer):
        peer.accept(load.plain(rng, "gas-1", 1, load.minutes_ago(60)))
        end = time.monotonic() + load.nightly_s(300)
        while time.monotonic() < end:
            if len(ledger.readings) - peer.acked < 3000:
                peer.accept(load.plain(rng, "gas-1", 500, load.minutes_ago(60) + len(ledger.readings) * 1000))
            proxy = proxies[rng.choice(SIDES)]
            rng.choice([Proxy.reset, Proxy.half_open, silence_for, outage_for])(proxy)
            faults += 1
            last_for(rng.uniform(0.0, 1.0))
        before = {side: proxy.accepted for side, proxy in proxies.items()}
        with promptly(RESUME_S_MAX):
            peer.wait_drained()
        print(f"{faults} faults, {len(ledger.readings)} readings, connections {before}")
        # A fault in one place makes the others connect anew as well, each a few times.
        assert all(count <= 4 * faults + CONNECTIONS_MAX for count in before.values()), before
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


def silence_for(proxy: Proxy) -> None:
    proxy.deaf()
    last_for(1.0)
    proxy.heal()


def outage_for(proxy: Proxy) -> None:
    proxy.stop()
    last_for(0.3)
    proxy.start()
