"""What other gateways are known to lose, as tests that ours passes: one line of docs/guarantee.md a test.

Issues are those of the projects named; figures of thingsboard-gateway were measured on its storage classes alone.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from citynet.notes import LossNote
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.wire import TELEMETRY
from citynet_gateway.spool import SegmentSpool, Spool, SpoolFull, SpoolSettings
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.spool.sqlite import SqliteSpool
from tests.gateway import FieldDevice, GatewayProcess, ServerPeer, wait_for
from tests.sim_files import SimFiles

SIM = Path("/spool")
KILLS = 5

WRITER = """
import sys, time
from pathlib import Path
from citynet.reading import Reading
from citynet.wire import TELEMETRY
from citynet_gateway.service import new_epoch
from citynet_gateway.spool import SegmentSpool, SpoolSettings
from citynet_gateway.spool.sqlite import SqliteSpool
kind = {"segments": SegmentSpool, "sqlite": SqliteSpool}[sys.argv[3]]
spool = kind(Path(sys.argv[1]), SpoolSettings(segment_bytes=65_536), new_epoch())
number = int(sys.argv[2])
began = time.monotonic()
while True:
    for _ in range(50):  # 1,000 messages a second, synced twenty times a second
        spool.append(TELEMETRY, [Reading("d", "m", number, float(number))], [])
        number += 1
    spool.sync(TELEMETRY)
    print(number, flush=True)  # all below it is accepted
    time.sleep(max(0.0, began + (number - int(sys.argv[2])) / 1000 - time.monotonic()))
"""


def contents(spool: Spool) -> tuple[list[float], list[LossNote]]:
    """Every unacknowledged value and loss of the telemetry, over all epochs."""
    values: list[float] = []
    losses: list[LossNote] = []
    for span in spool.spans(TELEMETRY):
        seq = span.acked + 1
        while (run := spool.read(TELEMETRY, span.epoch, seq, 500, 1 << 20)) is not None:
            values += [item.value for item in run.readings]
            losses += [note for _, note in run.notes if isinstance(note, LossNote)]
            seq = run.last + 1
    return values, losses


def write(spool: SegmentSpool, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        spool.append(TELEMETRY, [Reading("d", "m", number, float(number))], [])
    spool.sync(TELEMETRY)


@pytest.mark.parametrize(("name", "kind"), [("segments", SegmentSpool), ("sqlite", SqliteSpool)])
def test_thingsboard_gateway_loses_accepted_records_at_kill_9(
    tmp_path: Path, name: str, kind: Callable[..., Spool]
) -> None:
    """Its SQLite store lost 13 to 109 records a kill at 1,000 messages a second."""
    accepted = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(accepted), name], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        target = accepted + 400
        while accepted < target:
            accepted = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:
            accepted = int(line) if line.endswith("\n") else accepted
        process.wait()
        process.stdout.close()
        spool = kind(tmp_path, SpoolSettings(), accepted + 1)
        values, losses = contents(spool)
        spool.close()
        assert losses == []
        assert values[:accepted] == [float(k) for k in range(accepted)]
        accepted = len(values)  # what was written and not yet told is there as well, and counts from now on


def test_thingsboard_gateway_accepts_a_thousand_on_a_full_disk_and_keeps_none() -> None:
    """Of 1,000 accepted its SQLite store kept 0, its file store 96, and neither said so."""
    files = SimFiles()
    spool = SegmentSpool(SIM, SpoolSettings(), 1, files)
    write(spool, 10)
    files.faults["pwrite"] = [OSError(errno.ENOSPC, "disk full")] * 1_000
    for number in range(10, 1_010):
        spool.append(TELEMETRY, [Reading("d", "m", number, float(number))], [])
        with pytest.raises(OSError, match="disk full"):
            spool.sync(TELEMETRY)
        assert spool.synced(TELEMETRY) == 10, "nothing is accepted, and it is said"
    files.faults.clear()
    assert spool.sync(TELEMETRY) == 1_010
    files.kill()
    assert contents(SegmentSpool(SIM, SpoolSettings(), 2, files)) == ([float(k) for k in range(1_010)], [])


def test_thingsboard_gateway_2124_the_store_is_destroyed_at_a_reconnect(folder: Path) -> None:
    with EmbeddedMosquitto(folder / "field") as field, EmbeddedMosquitto(folder / "uplink") as uplink:
        gateway, device, server = (
            GatewayProcess(folder, field, uplink),
            FieldDevice(field.port),
            ServerPeer(uplink.port),
        )
        try:
            server.mute = True  # nothing is acknowledged, so everything stays in the spool
            gateway.start()
            wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
            device.send_all([{"level": k} for k in range(200)])
            for number in range(1, 4):
                uplink.kill()
                wait_for(lambda goal=number: len(gateway.events("uplink-lost")) >= goal, "the uplink is lost")
                uplink.start()
                wait_for(lambda goal=number: len(gateway.events("uplink-back")) >= goal, "the uplink is back")
            held = sum(item["last"] - item["acked"] for item in gateway.spool("verify")["epochs"])
            assert held == 200
            server.mute = False
            wait_for(lambda: len(server.values()) >= 200, "everything arrives")
            assert sorted(server.values()) == [float(k) for k in range(200)]
        finally:
            gateway.kill()
            device.close()
            server.close()


def test_thingsboard_gateway_2094_45_gb_after_an_outage_of_four_days(tmp_path: Path) -> None:
    """The cap holds whoever sends: those that can wait do, for the others the oldest gives way and is declared."""
    settings = SpoolSettings(segment_bytes=64 << 10, bytes_max=2 << 20)
    spool = SegmentSpool(tmp_path, settings, 1)
    number = 0
    for waits in (True, False):
        for _ in range(2_000):
            try:
                for _ in range(50):
                    spool.append(TELEMETRY, [Reading("d", "m", number, float(number))], [], waits=waits)
                    number += 1
            except SpoolFull:
                assert waits
                break
            spool.sync(TELEMETRY)
    spool.sync(TELEMETRY)
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.seg"))
    assert 1 << 20 < on_disk <= settings.bytes_max
    values, losses = contents(spool)
    assert sum(loss.span for loss in losses) + len(values) == number, "what is not there is declared"
    assert values == [float(k) for k in range(number - len(values), number)]
    spool.close()


def test_thingsboard_gateway_1694_memory_grows(folder: Path) -> None:
    """Thousands of messages through the whole process, half of them with the uplink gone: its memory stays where it was."""
    with EmbeddedMosquitto(folder / "field") as field, EmbeddedMosquitto(folder / "uplink") as uplink:
        gateway, device, server = (
            GatewayProcess(folder, field, uplink),
            FieldDevice(field.port),
            ServerPeer(uplink.port),
        )
        try:
            gateway.start()
            wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
            sizes, sent = [], 0
            for number in range(6):
                if number == 3:
                    uplink.stop()
                device.send_all([{f"m{k}": float(sent + k) for k in range(10)} for _ in range(400)])
                sent += 4_000
                if number < 3:
                    wait_for(lambda goal=sent: len(server.values()) >= goal, "everything arrives")
                wait_for(lambda goal=sent: spooled(gateway) >= goal, "everything is safe")
                assert gateway.process is not None
                status = Path(f"/proc/{gateway.process.pid}/status").read_text()
                sizes.append(int(status.split("VmRSS:")[1].split()[0]))
            assert max(sizes[1:]) - sizes[0] < 4_096, f"kB after every 4,000 values: {sizes}"
        finally:
            gateway.kill()
            device.close()
            server.close()


def spooled(gateway: GatewayProcess) -> int:
    return sum(int(item["last"]) for item in gateway.spool()["epochs"])


def damaged(folder: Path) -> Path:
    spool = SegmentSpool(folder, SpoolSettings(segment_bytes=1_024), 1)
    for first in range(0, 120, 20):
        write(spool, 20, first=first)
    spool.save()
    spool.close()
    return min(folder.glob("telemetry-*.seg"))


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 4_096, b"\xff" * 4_096, b"\xc7\x9e\xff\xff\xff\x7f" * 500])
def test_telegraf_18528_panics_on_a_corrupt_log_at_the_start(tmp_path: Path, garbage: bytes) -> None:
    damaged(tmp_path).write_bytes(garbage)
    spool = SegmentSpool(tmp_path, SpoolSettings(segment_bytes=4_096), 2)
    values, losses = contents(spool)
    assert sum(loss.span for loss in losses) + len(values) == 120
    write(spool, 5, first=120)
    assert contents(spool)[0][-5:] == [float(k) for k in range(120, 125)]
    spool.close()


def test_telegraf_16500_sends_the_whole_log_again_after_a_restart(folder: Path) -> None:
    with EmbeddedMosquitto(folder / "field") as field, EmbeddedMosquitto(folder / "uplink") as uplink:
        gateway, device, server = (
            GatewayProcess(folder, field, uplink, {"resend_after_s": 60.0, "resend_after_s_max": 60.0}),
            FieldDevice(field.port),
            ServerPeer(uplink.port),
        )
        try:
            for number in range(3):
                gateway.start()
                wait_for(lambda goal=number + 1: len(gateway.events("field-subscribed")) >= goal, "the gateway listens")
                device.send_all([{"level": 100.0 * number + k} for k in range(100)])
                wait_for(lambda goal=100 * (number + 1): len(server.values()) >= goal, "everything arrives")
                gateway.kill()
            assert server.values() == [float(k) for k in range(300)]
            assert server.why["duplicate"] == 0, "the hello told what the server has, nothing was sent twice"
        finally:
            gateway.kill()
            device.close()
            server.close()


class Recorder(LocalFiles):
    """The order of what reaches the storage."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def unlink(self, path: Path) -> None:
        self.calls.append(("unlink", path.name))
        super().unlink(path)

    def sync_folder(self, folder: Path) -> None:
        self.calls.append(("sync-folder", folder.name))
        super().sync_folder(folder)


def test_vector_22489_acknowledges_before_the_sync() -> None:
    """The whole chain is `test_mutant_answer_before_sync_is_caught`; here: only what is synced counts as accepted."""
    files = SimFiles()
    spool = SegmentSpool(SIM, SpoolSettings(), 1, files)
    spool.append(TELEMETRY, [Reading("d", "m", 1, 1.0)], [])
    files.faults["datasync"] = [OSError(errno.EIO, "no sync")]
    with pytest.raises(OSError, match="no sync"):
        spool.sync(TELEMETRY)
    assert spool.synced(TELEMETRY) == 0
    assert spool.read(TELEMETRY, 1, 1, 10, 1_000) is None


def test_vector_25779_does_not_sync_the_directory(tmp_path: Path) -> None:
    files = Recorder()
    spool = SegmentSpool(tmp_path, SpoolSettings(segment_bytes=4_096), 1, files)
    before = len(files.calls)
    write(spool, 1)
    assert files.calls[before:] == [("sync-folder", tmp_path.name)]
    spool.close()


def test_vector_25570_unlinks_before_its_ledger_is_synced() -> None:
    files = SimFiles()
    spool = SegmentSpool(SIM, SpoolSettings(segment_bytes=600), 1, files)
    for number in range(40):
        write(spool, 1, first=number)
    segments = [name for name in files.names(SIM) if name.endswith(".seg")]
    files.faults["datasync"] = [OSError(errno.EIO, "the ledger is not synced")]
    with pytest.raises(OSError, match="not synced"):
        spool.ack(TELEMETRY, 1, 40)
    assert [name for name in files.names(SIM) if name.endswith(".seg")] == segments
    spool.ack(TELEMETRY, 1, 40)
    spool.trim()
    assert len([name for name in files.names(SIM) if name.endswith(".seg")]) == 1


def test_edgex_go_5185_keeps_58_percent_of_200_events_a_second() -> None:
    """At 500 a second; for a minute with ``citynet bench gateway --only kept``, here for a few seconds."""
    words = [sys.executable, "-m", "citynet", "bench", "gateway", "--quick", "--json", "--only", "kept"]
    done = subprocess.run(words, capture_output=True, check=True, text=True, timeout=170)
    report = json.loads(done.stdout)
    (line,) = report["lines"]
    assert (report["quick"], line["value"]) == (True, 100)
    assert line["goal"] > 0
