"""Row 8 of the test matrix, short form: the network between ingest and broker, and between gateway and broker, fails in every
way a network fails. Delivery resumes within 30 s of healing, without a storm of connections, and nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults import load
from tests.faults.harness import CLEAN, Ledger, LedgerPeer, assert_balanced, judge, last_for
from tests.faults.proxy import Proxy
from tests.ingest import IngestProcess, wait_for

RESUME_S_MAX = 30.0
CONNECTIONS_MAX = 12  # a fault, with a pause that grows to 0.5 s on ingest's side and 1 s on the gateway's
KEEP_ALIVE_S = 2


def silence(proxy: Proxy) -> None:
    """Drop silently for longer than the keep-alive allows, then heal."""
    proxy.deaf()
    before = proxy.accepted
    wait_for(lambda: proxy.accepted > before, "the keep-alive notices the silence")
    proxy.heal()


def outage(proxy: Proxy) -> None:
    """Refuse connections for a while."""
    proxy.stop()
    last_for(2)
    proxy.start()


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "reset": Proxy.reset,
    "silent-drop": silence,
    "half-open": Proxy.half_open,
    "refused": outage,
}


@pytest.mark.parametrize("side", ["ingest", "gateway"])
def test_partition(side: str, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with Proxy(broker.port) as proxy:
        ports = {"ingest": broker.port, "gateway": broker.port, side: proxy.port}
        ingest = IngestProcess(folder, ports["ingest"], dsn, {"keep_alive_s": KEEP_ALIVE_S})
        ingest.start()
        try:
            with LedgerPeer(ports["gateway"], "gw-1", ledger, keep_alive_s=KEEP_ALIVE_S) as peer:
                for name, fault in FAULTS.items():
                    peer.accept(load.plain(rng, f"gas-{name}", 1500, load.minutes_ago(10)))
                    peer.wait_acked(peer.acked + rng.randrange(100, 700))
                    before = proxy.accepted
                    fault(proxy)
                    started = time.monotonic()
                    peer.wait_drained(RESUME_S_MAX)
                    print(f"{side}: {name} resumed and drained in {time.monotonic() - started:.1f} s")
                    assert 1 <= proxy.accepted - before <= CONNECTIONS_MAX, name
            assert ingest.stop() == 0, ingest.tail()
        finally:
            if ingest.running.poll() is None:
                ingest.kill()
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)
