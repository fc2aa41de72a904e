"""Row 16 of the test matrix: a cloned card. Two gateways with one id at the same time are told, and lose and double nothing."""

from __future__ import annotations

import time
from pathlib import Path

from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults.harness import assert_balanced
from tests.gateway import GATEWAY, FieldDevice, GatewayProcess
from tests.ingest import ingest_running, query, stored, wait_for

MESSAGES = 60


def test_two_gateways_with_one_id(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    fields = [EmbeddedMosquitto(folder / f"field-{k}") for k in (1, 2)]
    with fields[0], fields[1], ingest_running(folder, broker, dsn) as ingest:
        twins = []
        for k, field in enumerate(fields, 1):
            place = folder / f"gateway-{k}"
            place.mkdir()
            twins.append(GatewayProcess(place, field, broker, {"heartbeat_s": 0.5}))
        devices = [FieldDevice(field.port, f"sensor-{k}") for k, field in enumerate(fields, 1)]
        start_ms = time.time_ns() // 1_000_000
        try:
            for twin in twins:
                twin.start()
                wait_for(lambda twin=twin: twin.events("gateway-started"), "the gateway runs")  # type: ignore[misc]
            for device in devices:
                device.send_all([{"ts": start_ms + k, "values": {"a": k}} for k in range(MESSAGES)])
            seen = "SELECT 1 FROM system_event WHERE kind = 'gateway_cloned' AND object = %s"
            wait_for(lambda: query(dsn, seen, GATEWAY), "the server sees two machines")
            for twin in twins:
                wait_for(lambda twin=twin: twin.events("uplink-cut-again"), "a twin notices")  # type: ignore[misc]
            count = "SELECT count(*) FROM reading r JOIN series s ON s.id = r.series_id WHERE s.metric = 'a'"
            wait_for(lambda: query(dsn, count)[0][0] >= 2 * MESSAGES, "both are heard to the end")
            for twin in twins:
                assert twin.stop() == 0
        finally:
            for twin in twins:
                twin.kill()
            for device in devices:
                device.close()
        assert '"gateway-cloned"' in ingest.log.read_text()
        assert ingest.stop() == 0
    found = sorted((name, value) for name, _, value, _ in stored(dsn) if name.endswith("/a"))
    assert found == sorted((f"sensor-{k}/a", float(value)) for k in (1, 2) for value in range(MESSAGES))
    assert (
        len({row[0] for row in query(dsn, "SELECT epoch FROM stream_cursor WHERE stream = 'telemetry' AND seq > 0")})
        == 2
    )
    assert_balanced(dsn, is_drained=False)
