"""Row 6 with the whole process: the disk refuses under load. Nobody is answered, it is told, it ends by itself."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_gateway import top
from tests.gateway import FieldDevice, GatewayProcess, ServerPeer, wait_for

ROOM_BYTES = (
    8 << 10
)  # that any file may still have beyond the log's size: for some lines of the log, and for a few messages


@pytest.mark.parametrize("spool", ["segments", "sqlite"])
def test_a_disk_that_refuses_is_told_and_costs_nothing(folder: Path, spool: str) -> None:
    port = child.free_port()
    with EmbeddedMosquitto(folder / "field") as field, EmbeddedMosquitto(folder / "uplink") as uplink:
        gateway = GatewayProcess(folder, field, uplink, {"spool": spool, "metrics_port": port})
        device, server = FieldDevice(field.port), ServerPeer(uplink.port)
        try:
            server.mute = True  # nothing is acknowledged, so what was written stays
            gateway.start()
            wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
            assert gateway.process is not None
            pid = gateway.process.pid
            limit_bytes = gateway.log.stat().st_size + ROOM_BYTES
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
            count = 800  # of about half a kilobyte
            device.send_all(
                [{"level": k, **{f"filling_of_some_length_{j}": j for j in range(12)}} for k in range(count)]
            )
            wait_for(lambda: server.statuses and server.statuses[-1].full, "the status says that nothing is taken")
            wait_for(
                lambda: top.fetch(port)["sync_failures_total", ""] >= 2,
                "it is counted, and tried again",
            )
            assert len(gateway.events("spool-storage-lost")) == 1, "told once"
            assert sum(claim.accepted for claim in server.statuses[-1].claims) < 13 * count
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
            server.mute = False
            wait_for(lambda: len(server.values()) == 13 * count, "everything arrives")
            levels = [value for *_, name, value in server.stored if name.endswith("/level")]
            assert levels == [float(k) for k in range(count)]
            wait_for(lambda: not server.statuses[-1].full, "the status is quiet again")
            assert len(gateway.events("spool-storage-back")) == 1
            assert server.losses() == []
            assert gateway.stop() == 0
        finally:
            gateway.kill()
            device.close()
            server.close()
