"""Modbus over real sockets and pseudo-terminals, against simulated devices with faults to order."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from citynet.quality import BAD, GOOD
from citynet.runtime.child import free_port
from citynet.runtime.metrics import REGISTRY
from citynet_gateway.drivers.modbus.bus import values_of
from citynet_gateway.drivers.modbus.driver import Modbus
from citynet_gateway.drivers.modbus.errors import MEANINGS, Garbage, ModbusError
from citynet_gateway.drivers.modbus.link import read_request
from citynet_gateway.outputs import registry
from citynet_gateway.outputs.modbus import ModbusSwitch
from citynet_gateway.outputs.port import OutputError
from citynet_gateway.settings import GatewaySettings
from citynet_sim.protocols.modbus import Device, SerialServer, TcpServer, crc16
from tests.fieldbus import Collector, context, running
from tests.gateway import wait_for
from tests.patience import DEADLINE_S

FAST = {"interval_s": 0.05}
LEVEL = {"metric": "level_m", "address": 10, "type": "f32"}
STATE = {"metric": "pump_alarm", "table": "discrete", "address": 3}
PATIENT = {"timeout_ms": 10_000}  # of a bus on which every device answers: a slow machine is no silence


def pump(level: float = 1.5) -> Device:
    high, low = struct.unpack(">HH", struct.pack(">f", level))
    return Device(holding={10: high, 11: low}, discrete={3: 1}, coils={0: 0, 1: 0})


def modbus(bus: dict[str, Any], outputs: list[dict[str, Any]] | None = None) -> Modbus:
    bus = {"name": "bus", "timeout_ms": 200, "backoff_s_max": 1.0, **bus}
    settings = GatewaySettings.model_validate({"modbus": [bus], "outputs": outputs or []})
    return Modbus(settings.modbus[0], context(settings))


def device(name: str, unit: int, *registers: dict[str, Any], interval_s: float = 0.05) -> dict[str, Any]:
    return {"device": name, "unit": unit, "interval_s": interval_s, "registers": list(registers or (LEVEL, STATE))}


def switches(driver: Modbus, *outputs: dict[str, Any]) -> list[ModbusSwitch]:
    each = [{"kind": "modbus", "bus": "bus", "timeout_ms": 1000, **item} for item in outputs]
    settings = GatewaySettings.model_validate({"modbus": [driver.bus.settings.model_dump()], "outputs": each})
    found = registry.build(settings, [driver]).values()
    return [item for item in found if isinstance(item, ModbusSwitch)]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@contextmanager
def line(
    kind: str, devices: dict[int, Device], folder: Path
) -> Iterator[tuple[TcpServer | SerialServer, dict[str, Any]]]:
    """The same devices over TCP, over a serial line, and how a bus reaches them."""
    if kind == "tcp":
        with TcpServer(devices) as server:
            yield server, {"host": "127.0.0.1", "port": server.port}
    else:
        with SerialServer(devices, folder / "ttyBUS") as server:
            yield server, {"serial": str(server.path), "baud": 115_200, "parity": "even"}


@pytest.fixture(params=["tcp", "rtu"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_values_are_read_scaled_and_sorted_into_streams(kind: str, tmp_path: Path) -> None:
    rest = Device(
        input={0: 0xFFFE, 1: 0x1234, 2: 0x5678, 40: 0b100},
        coils=dict.fromkeys(range(20), 0) | {17: 1},
    )
    rest.input |= dict(zip(range(50, 54), struct.unpack(">4H", struct.pack(">d", 6.5)), strict=True))
    registers: list[dict[str, Any]] = [
        {"metric": "t", "table": "input", "address": 0, "type": "i16", "scale": 0.1, "offset": 20.0, "unit": "Cel"},
        {"metric": "sum", "table": "input", "address": 1, "type": "u32", "word_order": "little"},
        {"metric": "bit", "table": "input", "address": 40, "type": "bit", "bit": 2},
        {"metric": "d", "table": "input", "address": 50, "type": "f64"},
        {"metric": "coil", "table": "coil", "address": 17},
        {"metric": "none", "table": "coil", "address": 3},
    ]
    with line(kind, {1: pump(), 2: rest}, tmp_path) as (_, place):
        driver = modbus({**place, **PATIENT, "devices": [device("pump-1", 1), device("rest", 2, *registers)]})
        with running(driver) as got:
            wait_for(lambda: len(got.values("rest/none")) > 2 and len(got.values("pump-1/level_m")) > 2, "readings")
            wait_for(lambda: driver.trouble() == "", "no trouble is left")
    first = {reading.name: reading for reading in reversed(got.readings())}
    assert {name: (reading.value, reading.quality) for name, reading in first.items()} == {
        "pump-1/level_m": (1.5, GOOD), "pump-1/pump_alarm": (1.0, GOOD), "rest/t": (19.8, GOOD),
        "rest/sum": (0x56781234, GOOD), "rest/bit": (1.0, GOOD), "rest/d": (6.5, GOOD), "rest/coil": (1.0, GOOD),
        "rest/none": (0.0, GOOD),
    }  # fmt: skip
    streams = {
        part.stream: {r.name for r in part.readings}
        for offer in got.offers
        for part in offer.parts
        if "pump" in part.readings[0].device
    }
    assert streams == {"alarm": {"pump-1/pump_alarm"}, "telemetry": {"pump-1/level_m"}}


def test_a_device_can_be_read_now(kind: str, tmp_path: Path) -> None:
    """Its own interval is an hour: what comes after the first poll comes because somebody asked."""
    with line(kind, {1: pump()}, tmp_path) as (_, place):
        driver = modbus({**place, **PATIENT, "devices": [device("pump-1", 1, interval_s=3600.0)]})
        with running(driver) as got:
            assert not driver.poll_now("pump-2")
            assert driver.poll_now("pump-1")
            wait_for(lambda: len(got.values("pump-1/level_m")) == 2, "the poll at the start and the one asked for")
            assert driver.poll_now("")
            wait_for(lambda: len(got.values("pump-1/level_m")) == 3, "all devices are one")


def test_a_dead_device_costs_its_neighbours_no_more_than_its_timeout(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    alive = Device(holding={0: lambda: next(ticks) % 65_536})
    counter = {"metric": "n", "address": 0}
    with line(kind, {1: alive, 2: Device(silent=True), 4: Device(silent=True)}, tmp_path) as (server, place):
        driver = modbus({**place, "devices": [device("a", 1, counter), device("b", 2), device("c", 3), device("d", 4)]})
        gone: set[int] = set()  # requests before which the healthy one was taken for silent: the machine had no time
        failed = driver._schedule.failed

        def note(number: int, now_s: float) -> int:
            gone.update([len(server.line.requests)] if number == 0 else [])
            return failed(number, now_s)

        monkeypatch.setattr(driver._schedule, "failed", note)
        with running(driver) as got:
            wait_for(lambda: ("c", "device_silent") in got.events() and len(got.values("a/n")) > 40, "silence is told")
            words = "3 of 4 devices silent: b: no answer within 200 ms; c: "
            wait_for(lambda: driver.trouble().startswith(words), "the trouble tells of the three")
            server.line.devices[3] = pump()
            wait_for(lambda: got.values("c/level_m"), "the device is back")
            wait_for(lambda: ("c", "device_back") in got.events(), "its return is told")
    asked = list(server.line.requests)
    # Between two probes of silent devices the healthy one always had its turn: it is due every 50 ms.
    probes = [k for k, request in enumerate(asked) if request.unit != 1]
    first_silence = probes[2]

    def is_healthy(probe: int) -> bool:
        last = max(k for k in range(probe) if asked[k].unit == 1)
        return not gone & {last, last + 1}  # it may have been asked, and heard of it after it was given up

    checked = [(a, b) for a, b in pairwise(probes) if a > first_silence and asked[b].unit != 3 and is_healthy(a)]
    assert checked
    assert all(b - a > 1 for a, b in checked)
    values = got.values("a/n")
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("wrong checksum", lambda frame: frame[:-1] + bytes([frame[-1] ^ 1])),
        ("garbage", lambda frame: b"\x00\xff\x13" * 9),
        ("cut short", lambda frame: frame[:-3]),
        ("endless", lambda frame: frame[:4] * 300),
        ("another unit", lambda frame: bytes([frame[0] + 1]) + frame[1:]),
    ],
)
def test_a_device_that_answers_garbage(kind: str, tmp_path: Path, what: str, fault: Callable[[bytes], bytes]) -> None:
    if kind == "tcp" and what in ("wrong checksum", "another unit"):
        pytest.skip("TCP has no checksum, and its first byte is no unit")
    bad, good = pump(), pump(2.5)
    with line(kind, {1: bad, 2: good}, tmp_path) as (_, place):
        driver = modbus({**place, "devices": [device("bad", 1), device("good", 2)]})
        with running(driver) as got:
            wait_for(lambda: len(got.values("bad/level_m")) > 2, "it is healthy at first")
            bad.corrupt = fault
            wait_for(lambda: "bad: " in driver.trouble(), "trouble is told")
            assert "no answer" in driver.trouble()
            before = len(got.values("good/level_m"))
            wait_for(lambda: len(got.values("good/level_m")) > before + 10, "the other one goes on")
            bad.corrupt = None
            before = len(got.values("bad/level_m"))
            wait_for(lambda: len(got.values("bad/level_m")) > before + 2, "it is taken back")
            wait_for(lambda: driver.trouble() == "", "no trouble is left")
    assert {reading.value for reading in got.readings() if reading.metric == "level_m"} == {1.5, 2.5}


def reframed(kind: str, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Frames with another message in them, and everything around it right."""

    def rtu(frame: bytes) -> bytes:
        body = frame[:1] + change(frame[1:-2])
        return body + crc16(body)

    def tcp(frame: bytes) -> bytes:
        message = change(frame[7:])
        return frame[:4] + struct.pack(">H", len(message) + 1) + frame[6:7] + message

    return rtu if kind == "rtu" else tcp


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda message: bytes([message[0], message[1] - 2]) + message[2:-2], "1 registers instead of 2"),
        (lambda message: bytes([message[0], message[1] + 2]) + message[2:] + b"\0\0", "3 registers instead of 2"),
        (lambda message: bytes([4]) + message[1:], "an answer to function 4 instead of 3"),
        (lambda message: bytes([6]) + message[2:6], "an answer to function 6 instead of 3"),
    ],
)
def test_a_right_frame_with_a_wrong_answer_is_no_answer(
    kind: str, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    station = Device(holding={10: 1, 11: 2}, corrupt=reframed(kind, change))
    with line(kind, {1: station}, tmp_path) as (server, place):
        bus = modbus({**place, **PATIENT}).bus
        with pytest.raises(Garbage, match=words):
            bus.ask(read_request(1, "holding", 10, 2))
        station.corrupt = None
        assert list(values_of(bus.ask(read_request(1, "holding", 10, 2)))) == [1, 2]
        bus.close()
    if isinstance(server, TcpServer):
        assert server.connections == 2, "nobody knows where the next frame would begin"


def test_a_write_that_is_repeated_wrongly_is_told(kind: str, tmp_path: Path) -> None:
    station = Device(holding={10: 1}, corrupt=reframed(kind, lambda message: message[:-1] + b"\x63"))
    with line(kind, {1: station}, tmp_path) as (server, place):
        driver = modbus({**place, **PATIENT})
        output = {"name": "mode", "unit": 1, "table": "holding", "address": 10, **PATIENT}
        (mode,) = switches(driver, output)
        with running(driver), pytest.raises(OutputError, match="repeats another address or value"):
            mode.write(True)
    assert [request.function for request in server.line.requests] == [6, 6], "it was tried twice"


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(kind: str, tmp_path: Path) -> None:
    slow = Device(holding={0: 100, 1000: 200})
    one, two = {"metric": "one", "address": 0}, {"metric": "two", "address": 1000}
    with line(kind, {1: slow}, tmp_path) as (_, place):
        driver = modbus({**place, "timeout_ms": 100, "devices": [device("slow", 1, one, two)]})
        with running(driver) as got:
            wait_for(lambda: len(got.values("slow/two")) > 2, "it answers in time")
            for _ in range(3):
                slow.delay_s = 0.15
                wait_for(driver.trouble, "it answers too late")
                slow.delay_s = 0.0
                got.offers.clear()
                wait_for(lambda: len(got.values("slow/two")) > 2, "it answers in time again")
                assert set(got.values("slow/one")) == {100.0}
    assert set(got.values("slow/one")) == {100.0}
    assert set(got.values("slow/two")) == {200.0}


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 11])
def test_every_exception_has_words_a_count_and_leaves_a_trace(code: int) -> None:
    refusing = pump()
    refusing.exception = code
    before = counted("citynet_gateway_modbus_requests_total", bus="bus", outcome="refused")
    with TcpServer({1: refusing, 2: pump()}) as server:
        driver = modbus({"host": "127.0.0.1", "port": server.port, "devices": [device("no", 1), device("yes", 2)]})
        with running(driver) as got:
            told = ("no", "device_silent") if code in (6, 11) else ("no", "device_refuses")
            words = f"exception {code}: {MEANINGS[code]}"  # on a slow machine there may be other trouble before
            wait_for(lambda: told in got.events() and words in driver.trouble(), "it is told")
            if code not in (6, 11):
                wait_for(lambda: len(got.readings("no/level_m")) > 3, "bad readings stand for what is refused")
                assert {reading.quality for reading in got.readings("no/level_m")} == {BAD}
                assert got.events().count(told) == 2, "once for each value, not at every poll"
            refusing.exception = 0
            wait_for(lambda: got.readings("no/level_m") and got.readings("no/level_m")[-1].quality == GOOD, "back")
            wait_for(lambda: driver.trouble() == "", "no trouble is left")
    assert counted("citynet_gateway_modbus_requests_total", bus="bus", outcome="refused") > before


def test_one_address_that_does_not_exist_costs_only_itself() -> None:
    registers = [{"metric": f"m{k}", "address": k} for k in (0, 1, 2, 4)]
    with TcpServer({1: Device(holding={0: 10, 1: 11, 4: 14})}) as server:
        place = {"host": "127.0.0.1", "port": server.port, **PATIENT}
        driver = modbus({**place, "devices": [device("d", 1, *registers)]})
        with running(driver) as got:
            wait_for(lambda: len(got.readings("d/m4")) > 3, "readings")
            assert driver.trouble() == "d m2 (holding 2): exception 2: no such address"
        assert got.values("d/m0")[0] == 10.0
        assert got.values("d/m1")[0] == 11.0
        assert got.values("d/m4")[0] == 14.0
        assert {reading.quality for reading in got.readings("d/m2")} == {BAD}
        # The request for all of them was tried once.
        assert [request.amount for request in server.line.requests[:5]] == [5, 1, 1, 1, 1]
        assert 5 not in [request.amount for request in server.line.requests[5:]]


def test_a_gap_is_read_along_and_distant_values_have_requests_of_their_own() -> None:
    registers = [{"metric": f"m{k}", "address": k} for k in (0, 5, 100, 101)]
    with TcpServer({1: Device(holding=dict.fromkeys(range(200), 7))}) as server:
        place = {"host": "127.0.0.1", "port": server.port, **PATIENT}
        driver = modbus({**place, "devices": [device("d", 1, *registers)]})
        with running(driver) as got:
            wait_for(lambda: len(got.readings("d/m101")) > 1, "readings")
    assert [(request.address, request.amount) for request in server.line.requests[:2]] == [(0, 6), (100, 2)]


def test_a_server_that_closes_idle_connections_costs_nothing() -> None:
    ticks = count()
    before = counted("citynet_gateway_modbus_requests_total", bus="bus", outcome="lost")
    with TcpServer({1: Device(holding={0: lambda: next(ticks)})}) as server:
        driver = modbus(
            {"host": "127.0.0.1", "port": server.port, "devices": [device("d", 1, {"metric": "n", "address": 0})]}
        )
        with running(driver) as got:
            for round_ in range(5):
                wait_for(lambda: server.connections > round_, "a new connection")  # noqa: B023
                seen = len(got.readings())  # the next but one came over it
                wait_for(lambda: len(got.readings()) > seen + 1, "readings")  # noqa: B023
                server.cut()
            wait_for(lambda: server.connections > 5, "a new connection")
            wait_for(lambda: driver.trouble() == "", "no trouble is left")
    assert counted("citynet_gateway_modbus_requests_total", bus="bus", outcome="lost") == before


def test_a_server_that_is_away_is_told_and_found_again(unused: int) -> None:
    driver = modbus(
        {"host": "127.0.0.1", "port": unused, "devices": [device("rare", 1, interval_s=3600), device("pump-1", 1)]}
    )
    with running(driver) as got:
        wait_for(lambda: "refused" in driver.trouble(), "trouble names the cause")
        assert f"127.0.0.1:{unused}" in driver.trouble()
        with TcpServer({1: pump()}, port=unused):
            wait_for(lambda: got.values("pump-1/level_m"), "readings")
            wait_for(
                lambda: got.values("rare/level_m"), "a poll that could not be made does not wait for its next turn"
            )
            wait_for(lambda: driver.trouble() == "", "no trouble is left")
        before = counted("citynet_gateway_polls_skipped_total", driver="modbus-bus", reason="lost")
        wait_for(driver.trouble, "away again")
        with TcpServer({1: pump()}, port=unused):
            seen = len(got.readings())
            wait_for(lambda: len(got.readings()) > seen, "readings again")
    assert counted("citynet_gateway_polls_skipped_total", driver="modbus-bus", reason="lost") > before


def test_a_name_that_can_be_none_is_told() -> None:
    driver = modbus({"host": "plc..example", "devices": [device("pump-1", 1)]})
    with running(driver):
        wait_for(lambda: driver.trouble().startswith("plc..example:502: "), "trouble names it")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_is_told() -> None:
    """Here by a clock that fails: whatever it is, a bus that is not polled any more must not look healthy."""
    with TcpServer({1: pump()}) as server:
        bus = {"name": "bus", "host": "127.0.0.1", "port": server.port, "devices": [device("pump-1", 1)]}
        settings = GatewaySettings.model_validate({"modbus": [bus]})
        driver = Modbus(settings.modbus[0], context(settings, clock_us=lambda: 1 // 0))
        with running(driver):
            wait_for(lambda: "ended by a fault of the program" in driver.trouble(), "it is told")


def test_a_serial_port_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    with SerialServer({1: pump()}, tmp_path / "ttyBUS") as server:
        driver = modbus({"serial": str(server.path), "baud": 115_200, "devices": [device("pump-1", 1)]})
        with running(driver) as got:
            for _ in range(2):
                wait_for(lambda: got.values("pump-1/level_m"), "readings")
                server.unplug()
                wait_for(lambda: "ttyBUS: No such file" in driver.trouble(), "the loss is told")
                got.offers.clear()
                server.plug()
            wait_for(lambda: got.values("pump-1/level_m"), "readings again")
            wait_for(lambda: driver.trouble() == "", "no trouble is left")


def test_polls_keep_to_their_grid_whatever_they_take() -> None:
    # Made or counted as left out: one for each point of the grid, so a poll is late by the wait for the processor at most.
    late_s: list[float] = []

    def take_30_ms() -> float:
        skipped = counted("citynet_gateway_polls_skipped_total", driver="modbus-bus", reason="behind")
        late_s.append(time.monotonic() - 0.05 * (len(late_s) + skipped))
        return 0.03

    slow = pump()
    slow.on_request = take_30_ms
    with TcpServer({1: slow}) as server:
        place = {"host": "127.0.0.1", "port": server.port, **PATIENT}
        driver = modbus({**place, "devices": [device("p", 1, LEVEL, interval_s=0.05)]})
        with running(driver) as got:
            wait_for(lambda: len(got.readings()) >= 40, "readings")
    # A drift of what an answer takes would be 0.9 s from the first ten polls to the last; the least late of ten is hardly late.
    assert abs(min(late_s[-10:]) - min(late_s[:10])) < 0.45


def test_while_readings_wait_for_their_sync_polling_pauses_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    with TcpServer({1: Device(holding={0: lambda: next(ticks)})}) as server:
        place = {"host": "127.0.0.1", "port": server.port, **PATIENT}
        driver = modbus({**place, "devices": [device("d", 1, {"metric": "n", "address": 0})]})
        monkeypatch.setattr(driver._pending, "_records_max", 10)
        before = counted("citynet_gateway_polls_skipped_total", driver="modbus-bus", reason="paused")
        with running(driver) as got:
            wait_for(got.readings, "readings")
            got.holding = True
            held_from = len(got.offers)
            wait_for(lambda: len(got.offers) >= held_from + 9, "the bound is reached")
            asked = len(server.line.requests)
            time.sleep(0.3)  # six polls are due
            assert len(server.line.requests) <= asked + 2
            got.holding = False
            driver.answer(got.offers[held_from:])
            wait_for(lambda: len(got.offers) > held_from + 20, "it goes on")
        driver._thread.join(DEADLINE_S)  # a poll that was on its way is offered as well
    assert counted("citynet_gateway_polls_skipped_total", driver="modbus-bus", reason="paused") >= before + 3
    values = got.values("d/n")
    assert values == sorted(set(values)), "what was read is offered once, in order"
    assert len(values) == next(ticks), "and nothing that was read is missing"


# --- outputs on the bus


def test_an_output_is_written_between_polls_and_read_back(kind: str, tmp_path: Path) -> None:
    station = pump()
    station.holding[500] = 7
    with line(kind, {1: station}, tmp_path) as (server, place):
        driver = modbus({**place, **PATIENT, "devices": [device("p", 1)]})
        valve, mode = switches(
            driver,
            {"name": "valve", "unit": 1, "address": 1, **PATIENT},
            {"name": "mode", "unit": 1, "table": "holding", "address": 500, "on": 300, "off": 20, **PATIENT},
        )
        with running(driver) as got:
            wait_for(lambda: len(got.readings()) > 4, "readings")
            assert mode.read() is None, "7 is neither on nor off"
            for on in (True, False, True):
                valve.write(on)
                mode.write(on)
                assert station.coils[1] == int(on)
                assert station.holding[500] == (300 if on else 20)
                assert (valve.read(), mode.read()) == (on, on)
            seen = len(got.readings())
            wait_for(lambda: len(got.readings()) > seen + 4, "polls go on")
    assert {request.function for request in server.line.requests} == {1, 2, 3, 5, 6}


def test_a_write_does_not_wait_for_a_device_that_is_known_to_be_silent(kind: str, tmp_path: Path) -> None:
    with line(kind, {1: pump(), 2: Device(silent=True)}, tmp_path) as (server, place):
        driver = modbus({**place, "timeout_ms": 1500, "devices": [device("dead", 2, interval_s=0.1)]})
        (valve,) = switches(driver, {"name": "valve", "unit": 1, "address": 1, "timeout_ms": 1200})
        with running(driver):
            wait_for(lambda: "dead" in driver.trouble(), "it is known to be silent")

            def written() -> bool:
                probes = len(server.line.requests)
                wait_for(lambda: len(server.line.requests) > probes, "a probe is on its way")
                try:
                    valve.write(True)  # the probe takes 1.5 s: who waits for its end never gets through
                except OutputError:
                    return False  # once: it was the machine that had no time
                return True

            wait_for(written, "a write beside a probe")
            assert server.line.devices[1].coils[1] == 1


def test_what_was_not_written_in_time_is_not_written_later() -> None:
    station, held, freed = pump(), threading.Event(), threading.Event()

    def hold() -> float:
        held.set()
        freed.wait(DEADLINE_S)
        return 0.0

    with TcpServer({1: station}) as server:
        place = {"host": "127.0.0.1", "port": server.port, **PATIENT}
        driver = modbus({**place, "devices": [device("p", 1)]})
        (valve,) = switches(driver, {"name": "valve", "unit": 1, "address": 1, "timeout_ms": 50})
        with running(driver) as got:
            wait_for(got.readings, "readings")
            station.on_request = hold
            assert held.wait(DEADLINE_S), "a poll is on its way"
            with pytest.raises(OutputError, match="output valve: bus not free within 50 ms"):
                valve.write(True)
            station.on_request = None
            freed.set()
            seen = len(got.readings())
            wait_for(lambda: len(got.readings()) > seen + 4, "polls go on")
    assert station.coils[1] == 0
    assert 5 not in [request.function for request in server.line.requests]


def test_an_output_that_cannot_be_written_says_why(unused: int) -> None:
    with TcpServer({1: pump(), 2: Device(silent=True)}) as server:
        place = {"host": "127.0.0.1", "port": server.port}
        driver, hasty = modbus({**place, **PATIENT}), modbus(place)
        (absent,) = switches(driver, {"name": "absent", "unit": 1, "address": 77, **PATIENT})
        (dead,) = switches(hasty, {"name": "dead", "unit": 2, "address": 0, **PATIENT})
        with running(driver), pytest.raises(OutputError, match="output absent: exception 2: no such address"):
            absent.write(True)
        with running(hasty), pytest.raises(OutputError, match="output dead: no answer within 200 ms"):
            dead.write(True)
        driver._thread.join(DEADLINE_S)
        with pytest.raises(OutputError, match="closed"):
            absent.write(True)
    lonely = modbus({"host": "127.0.0.1", "port": unused})
    (valve,) = switches(lonely, {"name": "valve", "unit": 1, "address": 1, **PATIENT})
    with running(lonely), pytest.raises(OutputError, match="refused"):
        valve.write(True)


def test_many_threads_share_a_bus_one_transaction_at_a_time(kind: str, tmp_path: Path) -> None:
    station = Device(coils=dict.fromkeys(range(8), 0), holding={0: 5})
    with line(kind, {1: station}, tmp_path) as (_, place):
        driver = modbus({**place, **PATIENT, "devices": [device("d", 1, {"metric": "n", "address": 0})]})
        each = {"unit": 1, **PATIENT}
        outputs = switches(driver, *({**each, "name": f"o{k}", "address": k} for k in range(8)))

        def work(output: ModbusSwitch) -> None:
            for on in (True, False) * 5 + (True,):
                output.write(on)
                assert output.read() is on

        with running(driver) as got:
            threads = [threading.Thread(target=work, args=(output,)) for output in outputs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE_S)
            wait_for(got.readings, "polls have their turn as well")
    assert station.coils == dict.fromkeys(range(8), 1)
    assert {reading.quality for reading in got.readings()} == {GOOD}


def test_random_answers_end_in_time_and_never_in_a_surprise(kind: str, tmp_path: Path) -> None:
    """Mutated frames: every transaction ends with values or with an error that has words, and the link can be used again."""
    random = Random(11)

    def spoil(frame: bytes) -> bytes:
        data = bytearray(frame)
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data))] = random.randrange(256)
        end = random.choice((len(data), random.randrange(1, len(data) + 1)))
        return bytes(data[:end]) + random.randbytes(random.choice((0, 0, 3)))

    station = Device(holding={10: 111, 11: 222}, corrupt=spoil)
    with line(kind, {1: station}, tmp_path) as (_, place):
        bus = modbus({**place, "timeout_ms": 15}).bus
        outcomes: Counter[str] = Counter()

        def read() -> list[int] | None:
            try:
                return list(values_of(bus.ask(read_request(1, "holding", 10, 2))))
            except ModbusError as error:
                assert str(error)
                outcomes[error.outcome] += 1
            return None

        while outcomes.total() < 150 or outcomes["values"] <= 5 or outcomes["garbage"] <= 20:
            if (values := read()) is not None:
                outcomes["values" if values == [111, 222] else "wrong"] += 1
            assert outcomes.total() < 5_000, outcomes
        station.corrupt = None
        assert wait_for(read, "an answer within 15 ms") == [111, 222]
        bus.close()
    if kind == "rtu":
        assert outcomes["wrong"] == 0, "its checksum sees it"


@pytest.fixture
def unused() -> int:
    """A port on which nobody listens, and that nobody else gets meanwhile."""
    return free_port()


def test_collector_is_of_use() -> None:
    """The stand-in of the service counts what is not answered, or the test of the pause would prove nothing."""
    driver = modbus({"host": "127.0.0.1", "port": 1})
    got = Collector(driver)
    driver._pending.open(got.put)
    got.holding = True
    driver._pending.offer([], [])
    assert got.offers == []
