"""The gateway process between real brokers, a device and a server stand-in."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.control import Ack
from citynet.formats import SENML
from citynet.notes import RawNote
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.wire import ALARM, TELEMETRY
from tests.gateway import GATEWAY, FieldDevice, GatewayProcess, ServerPeer, wait_for
from tests.patience import DEADLINE_S, promptly


class City:
    """Two brokers (the field's and the uplink's), a device, the server stand-in and the gateway."""

    def __init__(self, folder: Path) -> None:
        self.field = EmbeddedMosquitto(folder / "field")
        self.uplink = EmbeddedMosquitto(folder / "uplink")
        self.field.start()
        self.uplink.start()
        self.gateway = GatewayProcess(folder, self.field, self.uplink)
        self.folder = folder
        self.device = FieldDevice(self.field.port)
        self.server = ServerPeer(self.uplink.port)

    def start(self, failpoint: str = "", mutant: str = "") -> None:
        """Start the gateway and wait until it listens to the field; again where it met its failpoint before that."""
        before = len(self.gateway.events("field-subscribed"))
        self.gateway.start(failpoint, mutant)

        def listens() -> bool:
            return len(self.gateway.events("field-subscribed")) > before

        # A mutant may stumble over what it did before.
        wait_for(lambda: listens() or ((mutant or failpoint) and not self.gateway.alive), "the gateway listens")
        if failpoint and not mutant and not listens():
            self.start(failpoint)

    def configure(self, tables: str = "", **settings: object) -> None:
        self.gateway = GatewayProcess(self.folder, self.field, self.uplink, settings, tables)

    def wait_values(self, count: int) -> list[float]:
        wait_for(lambda: len(self.server.values()) >= count, f"{count} readings at the server")
        return self.server.values()

    def close(self) -> None:
        self.gateway.kill()
        self.device.close()
        self.server.close()
        self.field.stop()
        self.uplink.stop()


@pytest.fixture
def city(folder: Path) -> Iterator[City]:
    found = City(folder)
    yield found
    found.close()


def test_readings_arrive_in_order_with_alarms_in_their_own_stream(city: City) -> None:
    city.start()
    city.device.send_all([{"ts": 1_790_000_000_000 + k, "values": {"level": k, "flood_alarm": -k}} for k in range(300)])
    city.wait_values(600)
    rows = city.server.stored
    assert [row[4] for row in rows if row[0] == TELEMETRY] == [float(k) for k in range(300)]
    assert [row[4] for row in rows if row[0] == ALARM] == [-float(k) for k in range(300)]
    assert {row[3] for row in rows} == {"sensor-1/level", "sensor-1/flood_alarm"}


def test_formats_are_chosen_by_content_type(city: City) -> None:
    city.start()
    city.device.send([{"bn": "sensor-1/", "n": "flow", "v": 2.5, "t": 1_790_000_000}], content_type=SENML)
    city.device.send({"flow": 3.5})
    assert city.wait_values(2) == [2.5, 3.5]


MAPPING = """
[[gateway.mappings]]
topic = "plc/+/data"
device = "plc-{2}"
values = [{ path = "t", metric = "temperature_c", scale = 0.1 }, { path = "run", metric = "run_alarm" }]
"""


def test_foreign_payloads_are_read_by_their_mapping(city: City) -> None:
    city.configure(MAPPING)
    city.start()
    city.device.send({"t": 215, "run": True}, topic="plc/7/data")
    city.device.send({"x": 1}, topic="plc/7/data")
    city.device.send({"level": 2.5})
    city.wait_values(3)
    assert {(row[0], row[3], row[4]) for row in city.server.stored} == {
        (TELEMETRY, "plc-7/temperature_c", 21.5), (ALARM, "plc-7/run_alarm", 1.0), (TELEMETRY, "sensor-1/level", 2.5),
    }  # fmt: skip
    (raw,) = [item for _, _, _, item in city.server.notes if isinstance(item, RawNote)]
    assert (raw.topic, raw.reason.partition(":")[0]) == ("plc/7/data", "no-values at $[0].values")


def test_what_cannot_be_understood_is_kept_as_raw_note(city: City) -> None:
    city.start()
    city.device.send(b"\xff not json")
    city.device.send({"level": "full", "flow": 1.0})
    city.device.send({"flow": 2.0}, topic=f"field/{GATEWAY}/no id!")
    city.device.send(b"x" * 100_000)
    city.device.send({"flow": 3.0}, content_type="text/csv")
    city.device.send({"flow": 4.0})
    assert city.wait_values(2) == [1.0, 4.0]
    raws = [item for _, _, _, item in city.server.notes if isinstance(item, RawNote)]
    assert [raw.reason.partition(" ")[0] for raw in raws] == [
        "bad-json", "not-a-number", "bad-identifier", "bad-json", "unknown-content-type",
    ]  # fmt: skip
    assert [len(raw.payload) for raw in raws][3] == 64 * 1024
    assert raws[2].topic == f"field/{GATEWAY}/no id!"
    wait_for(lambda: city.server.statuses[-1].rejected == 5, "the status counts them")


def test_a_device_that_repeats_itself_is_kept_and_retained_values_are_not_new(city: City) -> None:
    city.start()
    city.device.send_all([{"door": 1}] * 5)
    city.device.send({"door": 7}, retain=True)
    assert city.wait_values(6) == [1.0] * 5 + [7.0]
    assert city.gateway.stop() == 0
    city.start()
    city.device.send({"door": 2})
    assert city.wait_values(7) == [1.0] * 5 + [7.0, 2.0]


def test_the_status_is_retained_and_tells_the_books(city: City) -> None:
    city.start()
    city.device.send_all([{"level": k} for k in range(20)])
    city.wait_values(20)
    wait_for(
        lambda: any(c.accepted == c.acked == 20 for c in city.server.statuses[-1].claims), "everything is acknowledged"
    )
    assert city.server.statuses[-1].online
    with promptly(5.0):
        assert city.gateway.stop() == 0
    wait_for(lambda: not city.server.statuses[-1].online, "the goodbye")
    city.start()
    wait_for(lambda: city.server.statuses[-1].online, "online again")
    city.gateway.kill()
    wait_for(lambda: not city.server.statuses[-1].online, "the will")
    assert any(claim.accepted == claim.acked == 20 for claim in city.server.statuses[-1].claims)


def test_days_without_a_server_then_everything_in_order(city: City) -> None:
    city.uplink.stop()
    city.start()
    city.device.send_all([{"level": k} for k in range(200)])
    wait_for(lambda: city.gateway.events("uplink-lost"), "it has tried")
    assert city.gateway.stop() == 0
    city.start()  # an older epoch in the spool, a new one behind it
    city.device.send_all([{"level": k} for k in range(200, 400)])
    wait_for(lambda: len(city.gateway.events("uplink-lost")) == 2, "it has tried again")
    city.uplink.start()
    assert city.wait_values(400) == [float(k) for k in range(400)]
    assert len(city.gateway.events("uplink-lost")) == 2  # once a process, however often it tried
    assert len(city.gateway.events("uplink-back")) == 1


def test_lost_acknowledgements_and_lost_batches_cost_nothing(city: City) -> None:
    city.start()
    wait_for(lambda: city.server.hellos, "the gateway says hello")
    with city.server._lock:  # so its answer is out: without one a gateway sends nothing
        city.server.mute = True
    city.device.send_all([{"level": k} for k in range(100)])
    city.wait_values(1)
    city.server.mute = False
    city.server.deaf = 3
    city.device.send_all([{"level": k} for k in range(100, 300)])
    assert city.wait_values(300) == [float(k) for k in range(300)]


def test_repeated_stale_unknown_and_future_acknowledgements_change_nothing(city: City) -> None:
    city.server.repeat = 3
    city.start()
    city.device.send_all([{"level": k} for k in range(50)])
    city.wait_values(50)
    epoch = city.server.stored[0][1]
    for wrong in (Ack(epoch, TELEMETRY, 10_000, 5), Ack(epoch + 1, TELEMETRY, 7, 5), Ack(epoch, TELEMETRY, 3, 5)):
        city.server.say(wrong)
    city.device.send_all([{"level": k} for k in range(50, 100)])
    assert city.wait_values(100) == [float(k) for k in range(100)]
    claim = wait_for(lambda: [c for c in city.server.statuses[-1].claims if c.acked >= 100], "all acknowledged")[0]
    assert (claim.ep, claim.accepted, claim.acked) == (epoch, 100, 100)


def test_a_server_that_was_restored_from_a_backup_gets_a_declared_loss(city: City) -> None:
    # Segments of the smallest size, so that acknowledged ones are really gone here.
    city.configure(segment_bytes=64 << 10)
    city.start()
    body = {f"metric_{k}": k for k in range(50)}
    for sent in range(25, 101, 25):  # in rounds: what is synced in one group stays in one segment
        city.device.send_all([body] * 25)
        city.wait_values(50 * sent)
    key = (TELEMETRY, city.server.stored[0][1])
    wait_for(lambda: city.server.cursors[key] == 5_000, "everything is stored")
    wait_for(lambda: any(c.acked == 5_000 for c in city.server.statuses[-1].claims), "everything is acknowledged")
    city.server.forget(key, 1_000)
    city.gateway.stop()
    city.start()
    wait_for(lambda: city.server.cursors[key] >= 5_000, "the books are closed again")
    losses = [item for _, epoch, item in city.server.losses() if epoch == key[1]]
    lost = sum(item.span for item in losses)
    assert {item.reason for item in losses} == {"server_regression"}
    assert losses[0].first == 1_001
    assert 0 < lost < 4_000  # what was still in the spool came again as data
    assert 1_000 + lost + sum(1 for row in city.server.stored if row[1] == key[1] and row[2] > 1_000) == 5_000


def test_both_brokers_may_restart(city: City) -> None:
    city.start()
    city.device.send_all([{"level": k} for k in range(20)])
    city.wait_values(20)
    for broker in (city.field, city.uplink):
        broker.kill()
        broker.start()
    wait_for(lambda: len(city.gateway.events("field-subscribed")) == 2, "the field is back")
    wait_for(lambda: len(city.gateway.events("uplink-back")) == 1, "the uplink is back")
    city.device.send_all([{"level": k} for k in range(20, 40)])
    assert city.wait_values(40) == [float(k) for k in range(40)]


def test_the_heartbeat_is_a_reading_of_the_gateway_itself(city: City) -> None:
    city.configure(heartbeat_s=0.2)
    city.start()
    wait_for(lambda: any(row[3] == f"{GATEWAY}/gateway_uptime_s" for row in city.server.stored), "a heartbeat")


def test_a_second_process_on_the_same_spool_is_refused_in_one_line(city: City) -> None:
    city.start()
    second = subprocess.run(
        [sys.executable, "-m", "citynet", "gateway", "run", "--config", str(city.gateway.config)],
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
        text=True,
    )
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].endswith("another gateway process has this spool open")


def test_the_spool_can_be_looked_into_while_the_gateway_runs(city: City) -> None:
    city.server.mute = True
    city.start()
    city.device.send_all([{"level": k} for k in range(30)])
    wait_for(lambda: sum(item["last"] for item in city.gateway.spool()["epochs"]) == 30, "30 records are safe")
    verified = city.gateway.spool("verify")
    assert verified["lost"] == 0
    assert [(item["stream"], item["acked"], item["held"]) for item in verified["epochs"]] == [(TELEMETRY, 0, 30)]


def test_importing_the_service_loads_nothing_of_the_server() -> None:
    code = (
        "import sys, citynet_gateway.service, citynet_gateway.cli; "
        "print(sorted({'numpy', 'fastapi', 'psycopg', 'uvicorn', 'mqtt5', 'rich', 'sqlite3', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


# --- row 1 of the test matrix: killed at each failpoint ---

FAILPOINTS = [
    "gateway.before-write", "gateway.before-write:4", "gateway.after-write:3", "gateway.after-sync", "gateway.after-sync:5",
    "gateway.after-answer", "gateway.after-answer:40", "gateway.after-send:4", "gateway.after-ack:2",
    "gateway.after-watermark", "gateway.mid-unlink",
]  # fmt: skip
ROUNDS = 12
PER_ROUND = 40
PADDING = {f"{k:02d}_{'x' * 50}": k for k in range(8)}


def lost_and_doubled(city: City, mutant: str = "") -> tuple[int, int]:
    """Send rounds of unique values, restarting the gateway when it dies; compare with what the server has.

    A mutant may stall; then the rounds go on after a while, and what has not arrived in the end is lost.
    """
    rounds, patience_s = (4, 3.0) if mutant else (ROUNDS, DEADLINE_S)
    for number in range(rounds):
        values = [float(number * PER_ROUND + k) for k in range(PER_ROUND)]
        # Long names beside it fill the segments, so that rotation and trimming are reached as well.
        city.device.send_all([{"level": value, **PADDING} for value in values])
        with contextlib.suppress(AssertionError) if mutant else contextlib.nullcontext():
            wait_for(lambda end=values[-1]: not city.gateway.alive or end in levels(city), "progress", patience_s)
        if not city.gateway.alive:
            city.start(mutant=mutant)
    if not mutant:
        settle(city)
    found = Counter(levels(city))
    sent = {float(value) for value in range(rounds * PER_ROUND)}
    assert set(found) <= sent
    return len(sent - set(found)), sum(count - 1 for count in found.values())


def settle(city: City) -> None:
    """A last message behind all others: when it is stored, everything before it is."""
    city.device.send_all([{"last": -1.0}])

    def is_stored() -> bool:
        if not city.gateway.alive:  # what was stored may be acknowledged only now, and be its failpoint
            city.start()
        return any(row[3].endswith("/last") for row in city.server.stored)

    wait_for(is_stored, "the last message")


def levels(city: City) -> list[float]:
    with city.server._lock:
        return [row[4] for row in city.server.stored if row[3].endswith("/level")]


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_at_a_failpoint_nothing_is_lost_or_doubled(city: City, failpoint: str) -> None:
    # What is sent is batches, not one status after the other.
    city.configure(segment_bytes=64 << 10, status_interval_s=5.0)
    city.start(failpoint)
    assert lost_and_doubled(city) == (0, 0)
    assert len(city.gateway.events("gateway-started")) >= 2, "the failpoint was reached"


@pytest.mark.parametrize("failpoint", ["gateway.after-sync:2", "gateway.after-answer:30", "gateway.after-write:2"])
def test_killed_between_sync_and_answer_a_device_that_repeats_itself_is_counted_right(
    city: City, failpoint: str
) -> None:
    """Without times in them the redelivered and the honestly repeated messages differ in nothing but DUP."""
    city.start(failpoint)
    for number in range(8):
        city.device.send_all([{"level": 1}] * 25)
        wait_for(lambda goal=25 * (number + 1): not city.gateway.alive or len(levels(city)) >= goal, "progress")
        if not city.gateway.alive:
            city.start()
    settle(city)
    assert len(city.gateway.events("gateway-started")) >= 2, "the failpoint was reached"
    assert len(levels(city)) == 200


def test_a_full_spool_answers_nobody_says_so_and_resumes_by_itself(city: City) -> None:
    city.configure(segment_bytes=64 << 10, spool_bytes_max=8 << 20)
    city.server.mute = True
    city.start()
    count = 160  # of 64 KiB: more than the spool takes
    city.device.send_all([b"\xff" * 65_536] * count)
    wait_for(lambda: city.server.statuses and city.server.statuses[-1].full, "the status says full")
    status = city.server.statuses[-1]
    assert status.spool_bytes <= status.spool_bytes_max
    assert sum(claim.accepted for claim in status.claims) < count
    assert len(city.gateway.events("spool-room-lost")) == 1
    city.device.send_all([{"fire_alarm": 1}])
    wait_for(lambda: any(c.st == ALARM and c.accepted for c in city.server.statuses[-1].claims), "an alarm has room")
    city.server.mute = False
    wait_for(lambda: len(city.server.notes) == count and not city.server.statuses[-1].full, "everything arrived")
    assert len(city.gateway.events("spool-room-back")) == 1
    assert city.server.values() == [1.0]


def test_at_a_full_spool_messages_that_cannot_wait_displace_the_oldest_and_it_is_declared(city: City) -> None:
    city.configure(segment_bytes=64 << 10, spool_bytes_max=8 << 20)
    city.server.mute = True
    city.start()
    count = 160
    city.device.send_all([b"\xff" * 65_536] * count)  # QoS 1: more than the spool takes
    wait_for(lambda: city.server.statuses and city.server.statuses[-1].full, "the status says full")
    late, accepted = 300, taken(city)
    padding = {f"{k:02d}_{'x' * 50}": k for k in range(60)}
    for number in range(late):
        city.device._client.publish(city.device.topic, json.dumps({"level": number, **padding}), qos=0)
    records = late * (1 + len(padding))
    wait_for(lambda: taken(city) >= accepted + records, "they are taken, while nothing gives room but the oldest")
    city.server.mute = False
    wait_for(lambda: len(levels(city)) == late, "what could not wait arrives")
    wait_for(lambda: not city.server.statuses[-1].full, "there is room again")
    wait_for(
        lambda: len(raw_notes(city)) + sum(loss.span for _, _, loss in city.server.losses()) == count,
        "all else is told",
    )
    assert {loss.reason for _, _, loss in city.server.losses()} == {"spool_full"}
    assert levels(city) == [float(number) for number in range(late)]


def taken(city: City) -> int:
    return sum(claim.accepted for claim in city.server.statuses[-1].claims)


def raw_notes(city: City) -> list[RawNote]:
    with city.server._lock:
        return [note for _, _, _, note in city.server.notes if isinstance(note, RawNote)]


def test_mutant_answer_before_sync_is_caught(city: City) -> None:
    city.configure(sync_interval_ms=500)  # time for a wrong answer, however busy the machine
    city.start("gateway.before-write:3", mutant="answer-before-sync")
    lost, _ = lost_and_doubled(city, mutant="answer-before-sync")
    assert lost > 0


def test_mutant_reuse_epoch_is_caught(city: City) -> None:
    city.start(mutant="reuse-epoch")
    city.device.send_all([{"before": k} for k in range(60)])
    city.wait_values(60)
    city.gateway.kill()
    city.start(mutant="reuse-epoch")
    lost, _ = lost_and_doubled(city, mutant="reuse-epoch")
    assert lost > 0
