"""The HJ 212 driver in a gateway process, against simulated stations over real sockets."""

from __future__ import annotations

import queue
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import cast

import pytest

from citynet.runtime import child
from citynet_gateway.drivers.allowance import BURST, EVERY_S
from citynet_gateway.drivers.hj212.driver import Hj212
from citynet_gateway.drivers.hj212.request import Reply, Request, clock_query, clock_set, interval_query, interval_set
from citynet_gateway.drivers.port import Context, Offer, Resumed
from citynet_gateway.intake import Sorter
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.timekeeper import wall_us
from citynet_sim.protocols.hj212 import Station, frame
from tests.cabinet import Cabinet
from tests.gateway import wait_for
from tests.patience import DEADLINE_S

MN, OTHER = "010000A8900016F000169DC0", "010000A8900016F000169DC1"
TABLES = f"""
[gateway.hj212]
port = 0
stations = [
  {{ mn = "{MN}", device = "river-3", password = "123456" }},
  {{ mn = "{OTHER}", device = "river-4", checksum = "modbus-crc" }},
]
"""


class Field(Cabinet):
    """A cabinet whose gateway listens for stations."""

    def __init__(self, folder: Path, tables: str) -> None:
        super().__init__(folder, tables)
        self.port = 0
        self.stations: list[Station] = []

    def listen(self, failpoint: str = "", mutant: str = "") -> None:
        entry = self.start("hj212-listening", failpoint, mutant)
        self.port = int(str(entry["port"]))

    def station(self, mn: str = MN, **more: object) -> Station:
        self.stations.append(Station(self.port, mn, **more))  # type: ignore[arg-type]
        return self.stations[-1]

    def close(self) -> None:
        for station in self.stations:
            station.cut()
        super().close()

    def trouble(self) -> str:
        with self.server._lock:
            return self.server.statuses[-1].drivers.get("hj212", "") if self.server.statuses else ""


@pytest.fixture
def field(folder: Path) -> Iterator[Field]:
    found = Field(folder, TABLES)
    yield found
    found.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_real_time_and_minute_data_are_answered_and_arrive(field: Field) -> None:
    field.listen()
    station = field.station()
    assert station.deliver(station.segment("2011", station.values({"w01018": 20.5, "w01001": 7.1})))
    assert station.deliver(station.segment("2051", station.summary({"w01018": (1, 2, 3, 4)})))
    assert field.wait_readings(6) == [
        ("river-3/cod_mg_l", 20.5), ("river-3/ph", 7.1),
        ("river-3/cod_minute_total_kg", 1.0), ("river-3/cod_minute_min_mg_l", 2.0),
        ("river-3/cod_minute_avg_mg_l", 3.0), ("river-3/cod_minute_max_mg_l", 4.0),
    ]  # fmt: skip
    assert station.heard[0] == {
        "QN": station.heard[0]["QN"], "ST": "91", "CN": "9014", "PW": "123456", "MN": MN, "Flag": "4",
    }  # fmt: skip


def test_a_message_that_wants_no_answer_gets_none(field: Field) -> None:
    field.listen()
    station = field.station()
    station.send(frame(station.segment("2011", station.values({"w01018": 1}), flag=4)))
    later = station.values({"w01018": 2}, station.now + timedelta(minutes=1))
    assert station.deliver(station.segment("2011", later), timeout_s=DEADLINE_S)
    assert [value for _, value in field.wait_readings(2)] == [1.0, 2.0]
    assert len(station.heard) == 1


def test_a_repetition_after_a_lost_answer_is_answered_and_not_stored_again(field: Field) -> None:
    field.listen()
    station = field.station()
    body = station.values({"w01018": 20.5, "w21003": 1.5})
    station.send(frame(station.segment("2011", body)))
    station.cut()  # its answer goes nowhere
    assert station.deliver(station.segment("2011", body))
    field.wait_readings(2)
    assert field.gateway.stop() == 0
    field.listen()
    station.port = field.port
    assert station.deliver(station.segment("2011", body)), "also after a restart"
    one = body.partition(";w21003")[0]
    assert station.deliver(station.segment("2011", one)), "also in other packets"
    corrected = body.replace("20.5", "21.5")
    assert station.deliver(station.segment("2011", corrected))
    assert field.wait_readings(3) == [
        ("river-3/cod_mg_l", 20.5), ("river-3/nh3_n_mg_l", 1.5), ("river-3/cod_mg_l", 21.5),
    ]  # fmt: skip


@pytest.mark.parametrize("failpoint", ["gateway.before-write:3", "gateway.after-sync:3", "gateway.after-answer:3"])
def test_killed_before_its_answer_the_repetition_is_stored_exactly_once(field: Field, failpoint: str) -> None:
    field.listen(failpoint)
    station = field.station()
    for number in range(8):
        body = station.values({"w01018": number, "w21003": -number - 1}, station.now + timedelta(minutes=number))
        while not station.deliver(station.segment("2011", body), recount=0, timeout_s=1):
            if not field.gateway.alive:
                field.listen()
                station.port = field.port
    assert len(field.gateway.events("gateway-started")) == 2, "the failpoint was reached"
    found = Counter(value for _, value in field.wait_readings(16))
    assert found == Counter([float(number) for number in range(-8, 8)])


def test_packets_of_a_divided_message(field: Field) -> None:
    field.listen()
    station = field.station()
    first, second, third = (
        "DataTime=20261122080000;w01018-Avg=1",
        "w21003-Avg=2",
        "DataTime=20261122080000;w21011-Avg=3",
    )
    for number, body in enumerate((first, second, third), 1):
        assert station.deliver(station.segment("2061", body, packet=(3, number)))
    assert station.deliver(station.segment("2061", second, packet=(3, 2))), "repeated alone"
    assert station.deliver(station.segment("2051", second, packet=(3, 2))), "no first packet: kept as it is"
    assert [value for _, value in field.wait_readings(3)] == [1.0, 2.0, 3.0]
    wait_for(field.raws, "the raw note")
    assert [raw.reason.partition(":")[0] for raw in field.raws()] == ["no-time at CP.DataTime"]


def test_two_stations_one_speaks_garbage_the_other_does_not_notice(field: Field) -> None:
    field.listen()
    good, bad = field.station(), field.station(OTHER, modbus=True)
    bad.connect()
    began_s = time.monotonic()
    noise = [
        b"\xff\x00##12", b"##0012not enough\r\n", b"GET / HTTP/1.1\r\n\r\n",
        frame(b"MN=unknown;CN=2011;Flag=5;CP=&&a-Rtd=1&&"), frame(b"MN=;CP="), frame(bad.segment("2011", "w01018-Rtd=1")),
        b"##" * 300, b"x" * 5_000,
    ]  # fmt: skip
    for number in range(24):
        bad.send(noise[number % len(noise)])
        body = good.values({"w01018": number}, good.now + timedelta(minutes=number))
        assert good.deliver(good.segment("2011", body), timeout_s=DEADLINE_S, recount=0)
    assert bad.deliver(bad.segment("2011", bad.values({"LA": 50.1}))), "what is in order is taken all the same"
    assert field.wait_readings(25)[-1] == ("river-4/noise_la_db", 50.1)
    assert [value for _, value in field.readings()[:24]] == [float(number) for number in range(24)]
    kinds = ("bad-length", "cut-short", "garbage", "station", "malformed", "checksum")
    expected = {f"hj212-{kind}" for kind in kinds}
    wait_for(lambda: expected <= {raw.reason.partition(" ")[0] for raw in field.raws()}, "raw notes of every kind")
    allowed = BURST + (time.monotonic() - began_s) / EVERY_S
    assert len(field.raws()) <= allowed, "no more than its allowance"


def test_a_wrong_checksum_is_not_answered_and_told_with_the_way_out(field: Field) -> None:
    field.listen()
    station = field.station(modbus=True)
    assert not station.deliver(station.segment("2011", station.values({"w01018": 1})), timeout_s=0.5, recount=1)
    expected = 'river-3: wrong checksum; it would be right with checksum = "modbus-crc"'
    wait_for(lambda: field.trouble() == expected, "the status tells")
    station.modbus = False
    assert station.deliver(station.segment("2011", station.values({"w01018": 1})))
    wait_for(lambda: field.trouble() == "", "the status is quiet again")
    assert field.wait_readings(1) == [("river-3/cod_mg_l", 1.0)]


def test_strangers_and_wrong_passwords_are_not_answered(field: Field) -> None:
    field.listen()
    for wrong in (field.station("88888880000001"), field.station(password="000000")):
        assert not wrong.deliver(wrong.segment("2011", wrong.values({"w01018": 1})), timeout_s=0.5, recount=0)
    wait_for(lambda: "river-3: wrong password" in field.trouble(), "the status tells")
    assert field.gateway.events("hj212-unknown-station")[0]["mn"] == "88888880000001"
    assert field.readings() == []


def test_a_message_in_order_that_says_nothing_we_know_is_kept_and_answered(field: Field) -> None:
    field.listen()
    station = field.station()
    assert station.deliver(station.segment("3020", "PolId=w01018;i12001-Info=1"))
    assert station.deliver(station.segment("2011", "DataTime=yesterday;w01018-Rtd=1"))
    assert station.deliver(station.segment("2011", "DataTime=yesterday;w01018-Rtd=1", qn="20261122080000001"))
    wait_for(lambda: len(field.raws()) >= 3, "raw notes")
    assert [raw.reason.partition(" ")[0] for raw in field.raws()] == ["unknown-command", "bad-time", "bad-time"]
    assert field.raws()[0].topic == f"hj212/{MN}"


def test_a_station_that_asks_for_the_time_gets_it(field: Field) -> None:
    field.listen()
    station = field.station(clock_error=timedelta(hours=5))
    station.connect()
    station.send(frame(station.segment("1013", "PolId=w01018")))
    wait_for(lambda: (station.receive(0.5), len(station.heard) >= 2)[1], "an answer and a request")
    # A request whose answer takes its time is sent again.
    assert list(dict.fromkeys(item["CN"] for item in station.heard)) == ["9013", "1012"]
    assert re.fullmatch(r"\d{14}", station.heard[1]["SystemTime"])
    assert station.clock_error != timedelta(hours=5)


def test_a_gateway_that_does_not_know_the_time_gives_none(
    field: Field, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guess would set right clocks wrong."""
    machine = folder / "machine"
    machine.write_text(f'{{"error_us": {-wall_us()}, "booted_us": 0, "synced": 0, "boot": 1}}')
    monkeypatch.setenv("CITYNET_TEST_MACHINE", str(machine))
    field.listen(mutant="machine-clock")
    station = field.station()
    station.connect()
    station.send(frame(station.segment("1013", "PolId=w01018")))
    assert station.deliver(station.segment("2011", station.values({"w01018": 20.5})), timeout_s=DEADLINE_S)
    assert [item["CN"] for item in station.heard] == ["9013", "9014"]


def test_slow_silent_and_too_many_connections_do_not_keep_others_out(field: Field, stack: ExitStack) -> None:
    field.configure(TABLES + "connections_max = 4\nframe_s = 1.0\n")
    field.listen()
    slow = [stack.enter_context(socket.create_connection(("127.0.0.1", field.port))) for _ in range(6)]
    for line in slow:
        line.sendall(b"##0")
    station = field.station()
    for number in range(3):
        body = station.values({"w01018": number}, station.now + timedelta(minutes=number))
        assert station.deliver(station.segment("2011", body), timeout_s=DEADLINE_S, recount=0)
    assert all(_closed(line) for line in slow[:3]), "at the bound the oldest stranger gives way"
    assert all(_closed(line) for line in slow), "and half a frame is not waited for any longer"
    byte_by_byte = frame(station.segment("2011", station.values({"w01018": 9}, station.now + timedelta(minutes=9))))

    def answered() -> bool:
        try:
            for position in range(len(byte_by_byte)):
                station.send(byte_by_byte[position : position + 1])
            return bool(station.receive(DEADLINE_S))
        except OSError:  # we were too slow ourselves: half a frame for more than a second
            station.cut()
            return False

    wait_for(answered, "its answer")
    assert len(field.wait_readings(4)) == 4


def test_a_full_spool_answers_nobody_and_goes_on_by_itself(field: Field) -> None:
    field.configure(
        TABLES + "data_bytes_max = 9999\n", segment_bytes=64 << 10, spool_bytes_max=8 << 20, sync_interval_ms=1
    )
    field.server.mute = True
    field.listen()
    station, padding, count = field.station(), "x" * 9_800, 0

    def delivered(number: int) -> bool:
        return station.deliver(
            station.segment("3019", f"{number};{padding}", qn=f"{number:017d}"), recount=0, timeout_s=2
        )

    while (is_taken := delivered(count)) or not field.is_full:  # a slow disk keeps one waiting as well
        count += is_taken
        assert count < 2_000
    field.server.mute = False
    wait_for(lambda: delivered(count), "there is room again")
    wait_for(lambda: len(field.raws()) > count, "everything arrived")
    texts = [re.findall(rb"CP=&&(\d+);", raw.payload)[0] for raw in field.raws()]
    assert sorted(int(text) for text in texts) == list(range(count + 1)), "and nothing twice"


def test_a_taken_port_is_told_and_tried_again(field: Field) -> None:
    port = child.free_port()
    with socket.create_server(("127.0.0.1", port)):
        field.configure(TABLES.replace("port = 0", f"port = {port}"))
        field.gateway.start()
        wait_for(lambda: f"cannot listen on 127.0.0.1 port {port}" in field.trouble(), "the status tells")
    wait_for(lambda: field.gateway.events("hj212-listening"), "it listens")


def test_mutant_answer_before_sync_is_caught(field: Field) -> None:
    field.configure(TABLES, sync_interval_ms=500)  # time for a wrong answer, however busy the machine
    field.listen("gateway.before-write", mutant="answer-before-sync")
    station, answered = field.station(), 0
    while field.gateway.alive and answered < 500:
        body = station.values({"w01018": answered}, station.now + timedelta(minutes=answered))
        answered += station.deliver(station.segment("2011", body), recount=0, timeout_s=1)
    assert field.gateway.wait_dead() < 0, "the failpoint was reached"
    field.listen()
    station.port = field.port
    assert station.deliver(station.segment("2011", station.values({"w01018": -1})))
    wait_for(lambda: ("river-3/cod_mg_l", -1.0) in field.readings(), "the last message")
    assert len(field.readings()) - 1 < answered, "an answered reading is gone"


LOADED = """
import sys
from citynet_gateway.cli import build
from citynet_gateway.pushed_config import PushedConfig
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.timekeeper import wall_us
pushed = PushedConfig(LocalFiles(), None, {"data_dir": sys.argv[1], **eval(sys.argv[2])}, wall_us)
build(pushed.begin(), pushed)
print(" ".join(sorted(sys.modules)))
"""


@pytest.fixture
def modules_with(tmp_path: Path) -> Callable[[str], set[str]]:
    def loaded(table: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", LOADED, str(tmp_path), table], capture_output=True, check=True, text=True
        )
        return set(done.stdout.split())

    return loaded


def test_a_driver_that_is_not_configured_is_not_loaded(modules_with: Callable[[str], set[str]]) -> None:
    without = modules_with("{}")
    assert "citynet_gateway.drivers.local_mqtt" in without
    assert not without & {"citynet_gateway.drivers.hj212.driver", "citynet_gateway.drivers.loop"}
    given = modules_with("{'hj212': {'stations': [{'mn': '1', 'device': 'a'}]}}")
    assert "citynet_gateway.drivers.hj212.driver" in given


def _closed(line: socket.socket) -> bool:
    line.settimeout(DEADLINE_S)
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def test_requests_to_a_station(tmp_path: Path) -> None:
    """The driver alone, as remote hands will call it."""
    settings = GatewaySettings.model_validate(
        {
            "data_dir": tmp_path,
            "hj212": {"port": 0, "stations": [{"mn": MN, "device": "river-3", "password": "123456"}]},
        }
    )
    offers: queue.Queue[Offer | Resumed] = queue.Queue()
    context = Context(settings, LocalFiles(), wall_us, time.monotonic, Random(1), Sorter([]))
    driver = Hj212(context, settings.hj212)
    driver._calls._over_time_s = DEADLINE_S  # what is sent again would be answered again
    driver.start(offers.put)
    try:
        assert driver.request("river-3", clock_query()).result(DEADLINE_S) == Reply("no-connection")
        listener = driver._listener
        wait_for(lambda: listener._server, "it listens")
        assert listener._server is not None
        station = Station(listener._server.sockets[0].getsockname()[1], MN)
        station.send(frame(station.segment("2011", station.values({"w01018": 1}))))
        driver.answer([cast("Offer", offers.get(timeout=DEADLINE_S))])
        zone = driver.zone_of("river-3")
        assert zone is not None
        for request, outcome in (
            (clock_query(), Reply("done", {"PolId": "w01018", "SystemTime": "20261122080000"})),
            (clock_set(1_790_000_000_000_000, zone), Reply("done")),
            (interval_set(60), Reply("done")),
            (interval_query(), Reply("done", {"RtdInterval": "60"})),
            (Request("1099"), Reply("wrong-cn")),
        ):
            pending = driver.request("river-3", request)
            wait_for(lambda found=pending: found.done() or (station.receive(0.2) and found.done()), "a reply")
            assert pending.result() == outcome
        assert station.now + station.clock_error == datetime(2026, 9, 21, 22, 13, 20)  # noqa: DTZ001  (its own zone)
        assert offers.empty(), "answers to requests are no readings"
        station.cut()
    finally:
        driver.pause()
        driver.stop()
