"""The city against a real broker: everything arrives, nothing is skipped, and the truth file says what happened."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from citynet.formats import decode
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.settings import load
from citynet_sim import live, publisher
from citynet_sim.live import LiveRun, header, play
from citynet_sim.settings import SimSettings
from citynet_sim.staging import simulation_of
from citynet_sim.truth import End, Truth, read_truth
from tests.patience import DEADLINE_S, promptly, wait_for


class Listener:
    """A stand-in for the gateways: keeps what it receives on ``field/#``, with the topic's device and the content type."""

    def __init__(self, port: int, topic: str = "field/#") -> None:
        self.messages: list[tuple[str, str, list[Reading]]] = []
        self.ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self.ready.set()
        self._client.on_disconnect = lambda *_: self.ready.clear()
        self._client.on_message = self._take
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        _, gateway, device = message.topic.split("/")
        content_type = message.properties.ContentType  # type: ignore[union-attr]
        decoded = decode(content_type, bytes(message.payload), device, accept_us=1)
        assert decoded.rejects == []
        self.messages.append((gateway, device, decoded.readings))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def listening(port: int) -> Iterator[Listener]:
    listener = Listener(port)
    try:
        assert listener.ready.wait(DEADLINE_S)
        yield listener
    finally:
        listener.close()


def settings_for(port: int, **more: Any) -> SimSettings:
    city = {"population": 0, "devices": {"gas-well": 6, "water-meter": 4, "manhole": 5, "pump-station": 2}}
    flags = {"broker": {"port": port}, "city": city, "sampling": {"every_s": 0.2}, "seed": 77, "texture": False}
    return load(SimSettings, None, flags | more)


class City:
    """A live run in a thread, so that the test can act upon its surroundings."""

    def __init__(self, settings: SimSettings, truth: Path, duration_s: float | None = None) -> None:
        self.result: list[End] = []
        self.error: list[BaseException] = []
        self.truth = truth
        start_us = time.time_ns() // 1000 if settings.speed == 1.0 else 1_767_225_600_000_000
        end_us = None if duration_s is None else start_us + round(duration_s * 1e6)
        self._run = LiveRun(simulation_of(settings, start_us), settings, start_us, end_us, truth)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self) -> None:
        try:
            self.result.append(self._loop.run_until_complete(play(self._run, self._stop)))
        except BaseException as error:  # noqa: BLE001  (handed to the test's own thread)
            self.error.append(error)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def stop(self) -> None:
        with suppress(RuntimeError):  # its loop is closed: it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """Stop and wait, whatever has happened."""
        self.stop()
        self._thread.join(DEADLINE_S)

    def end(self) -> End:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error[0]
        return self.result[0]

    def lines(self, kind: str) -> int:
        return self.truth.read_bytes().count(b'{"t":"%s"' % kind.encode()) if self.truth.exists() else 0


StartCity = Callable[..., City]


@pytest.fixture
def start_city() -> Iterator[StartCity]:
    """Starts cities; whatever the test does, none outlives it."""
    cities: list[City] = []

    def start(*args: Any, **kwargs: Any) -> City:
        cities.append(City(*args, **kwargs))
        return cities[-1]

    yield start
    for city in cities:
        city.close()


@pytest.fixture
def truth_path(tmp_path: Path) -> Path:
    return tmp_path / "truth.jsonl"


def multiset(messages: list[tuple[str, str, list[Reading]]]) -> Counter[tuple[str, str, tuple[Reading, ...]]]:
    return Counter((gateway, device, tuple(readings)) for gateway, device, readings in messages)


def written(truth: Truth) -> Counter[tuple[str, str, tuple[Reading, ...]]]:
    return Counter((m.gateway, m.device, m.readings) for m in truth.messages)


def test_everything_arrives_exactly_as_the_truth_says(
    broker: EmbeddedMosquitto, truth_path: Path, start_city: StartCity
) -> None:
    with listening(broker.port) as listener:
        started_us = time.time_ns() // 1000
        end = start_city(settings_for(broker.port), truth_path, duration_s=2.0).end()
        wait_for(lambda: len(listener.messages) >= end.sent, "all messages have arrived")
    truth = read_truth(truth_path)
    assert end == truth.end == End(17 * 10, 17 * 10, 0, sum(len(m.readings) for m in truth.messages))
    assert all(message.acked and message.resends == 0 for message in truth.messages)
    assert multiset(listener.messages) == written(truth)
    assert {gateway for gateway, _, _ in listener.messages} == {"gw-01", "gw-02"}
    times = [m.readings[0].time_us for m in truth.messages]
    assert started_us <= min(times) <= max(times) <= time.time_ns() // 1000  # event time is the wall clock
    assert truth.header["seed"] == 77


def test_faster_than_time_waits_for_the_broker_and_loses_nothing(
    broker: EmbeddedMosquitto, truth_path: Path, start_city: StartCity
) -> None:
    settings = settings_for(broker.port, speed=1000.0, buffer_messages_max=5, in_flight_max=4, pack_max=1)
    with listening(broker.port) as listener:
        end = start_city(settings, truth_path, duration_s=30.0).end()
        wait_for(lambda: len(listener.messages) >= end.sent, "all messages have arrived")
    assert end.sent == end.acked == 17 * 150
    assert multiset(listener.messages) == written(read_truth(truth_path))


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for a slow broker's last answers."""
    monkeypatch.setattr(live, "DRAIN_STOPPED_S", DEADLINE_S)


@pytest.mark.usefixtures("_patience")
def test_broker_crash_skips_no_message(broker: EmbeddedMosquitto, truth_path: Path, start_city: StartCity) -> None:
    with listening(broker.port) as listener:
        city = start_city(settings_for(broker.port), truth_path)
        wait_for(lambda: len(listener.messages) > 60, "messages flow")
        broker.kill()
        at_crash = city.lines("msg")
        wait_for(lambda: city.lines("msg") > at_crash + 100, "the city lives on without its broker")
        broker.start()
        resumed = len(listener.messages)
        wait_for(lambda: len(listener.messages) > resumed + 250, "messages flow again")
        city.stop()
        end = city.end()
        truth = read_truth(truth_path)
        # What the broker had acknowledged, or had under way, when it was killed is the broker's to lose; nothing later is.
        later = {(m.gateway, m.device, m.readings) for m in truth.messages if m.number > at_crash}
        wait_for(lambda: later <= set(multiset(listener.messages)), "all messages from after the crash have arrived")
    assert (end.lost, end.acked) == (0, end.sent)
    got, sent = multiset(listener.messages), written(truth)
    assert set(got) <= set(sent)
    copies = {(m.gateway, m.device, m.readings): 1 + m.resends for m in truth.messages}
    assert all(count <= copies[key] for key, count in got.items())


@pytest.mark.usefixtures("_patience")
def test_message_that_nobody_receives_is_kept_not_counted(
    broker: EmbeddedMosquitto, truth_path: Path, start_city: StartCity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "SETTLE_S_MAX", DEADLINE_S)  # a slow broker leaves no message uncertain
    city = start_city(settings_for(broker.port), truth_path)
    wait_for(lambda: city.lines("msg") > 100, "the city talks to nobody")
    assert city.lines("ack") == 0
    with listening(broker.port) as listener:
        wait_for(lambda: len(listener.messages) > 200, "messages flow")
        city.stop()
        end = city.end()
        wait_for(lambda: len(listener.messages) >= end.sent, "all messages have arrived")
    truth = read_truth(truth_path)
    assert end.acked == end.sent
    assert city.lines("again") == 0
    assert multiset(listener.messages) == written(truth)  # exactly once: a refusal is certain


def test_refused_messages_are_kept(folder: Path, truth_path: Path, start_city: StartCity) -> None:
    acl = folder / "acl"
    acl.write_text("topic read field/#\ntopic write field/gw-01/#\n")
    acl.chmod(0o644)
    server = EmbeddedMosquitto(folder / "strict", more=f"acl_file {acl}\n")
    with server, listening(server.port) as listener:
        city = start_city(settings_for(server.port), truth_path)
        wait_for(lambda: len(listener.messages) > 60, "the permitted half flows")
        last = city.lines("msg")  # the answers to those after it may come too late for the stop

        def acked(gateway: str) -> set[bool]:
            return {m.acked for m in read_truth(truth_path).messages if m.gateway == gateway and m.number <= last}

        wait_for(lambda: acked("gw-01") == {True}, "the permitted half is answered")
        city.stop()
        end = city.end()
    truth = read_truth(truth_path)
    assert {message.acked for message in truth.messages if message.gateway == "gw-02"} == {False}
    assert end.sent == len(truth.messages)
    assert end.acked == sum(message.acked for message in truth.messages)


def test_full_device_buffer_is_written_down_as_loss(truth_path: Path, start_city: StartCity, folder: Path) -> None:
    away = EmbeddedMosquitto(folder / "away")  # has a port, never starts
    city = start_city(settings_for(away.port, buffer_messages_max=2), truth_path, duration_s=None)
    wait_for(lambda: city.lines("msg") > 150, "the city talks to no broker")
    city.stop()
    end = city.end()
    truth = read_truth(truth_path)
    reasons = Counter(message.lost for message in truth.messages)
    assert reasons["stopped"] == 17 * 2
    assert reasons["buffer-full"] == end.sent - 17 * 2
    assert (end.acked, end.lost) == (0, end.sent)


@contextmanager
def _sim(port: int, truth: Path, *more: str, limit_bytes: int | None = None) -> Iterator[subprocess.Popen[str]]:
    def limits() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "citynet", "sim", "run", "--broker-port", str(port), "--truth", str(truth), *more]
    process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, preexec_fn=limits)  # noqa: PLW1509
    try:
        yield process
    finally:  # a test that failed must not leave it to the next ones
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_cleanly_within_3_s(
    broker: EmbeddedMosquitto, truth_path: Path, number: signal.Signals
) -> None:
    with listening(broker.port) as listener, _sim(broker.port, truth_path, "--gateways", "gw-07") as process:
        wait_for(lambda: len(listener.messages) > 100, "messages flow")
        with promptly(3.0):
            process.send_signal(number)
            _, words = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, words
        truth = read_truth(truth_path)
        assert truth.end is not None
        assert truth.end.sent == truth.end.acked == len(truth.messages)
        wait_for(lambda: len(listener.messages) == len(truth.messages), "all messages have arrived")
    assert {gateway for gateway, _, _ in listener.messages} == {"gw-07"}
    events = [json.loads(line)["event"] for line in words.splitlines()]
    assert events[0] == "sim-started"
    assert events[-1] == "sim-stopped"


def test_broker_that_hangs_does_not_delay_the_stop(broker: EmbeddedMosquitto, truth_path: Path) -> None:
    with listening(broker.port) as listener, _sim(broker.port, truth_path) as process:
        wait_for(lambda: len(listener.messages) > 100, "messages flow")
        assert broker._process is not None
        broker._process.send_signal(signal.SIGSTOP)
        try:
            before = truth_path.read_bytes().count(b'{"t":"msg"')
            wait_for(lambda: truth_path.read_bytes().count(b'{"t":"msg"') > before + 20, "messages wait")
            with promptly(3.5):
                process.send_signal(signal.SIGTERM)
                _, words = process.communicate(timeout=DEADLINE_S)
        finally:
            broker._process.send_signal(signal.SIGCONT)
        assert process.returncode == 0, words
    truth = read_truth(truth_path)
    assert truth.end is not None
    assert truth.end.acked < truth.end.sent


def test_broker_that_takes_connections_and_says_nothing_leaves_nothing_behind(
    broker: EmbeddedMosquitto, truth_path: Path, start_city: StartCity
) -> None:
    assert broker._process is not None
    broker._process.send_signal(signal.SIGSTOP)
    try:
        city = start_city(settings_for(broker.port), truth_path)
        wait_for(lambda: city.lines("msg") > 100, "the city talks to a deaf broker")
        city.stop()
        assert city.end().acked == 0
    finally:
        broker._process.send_signal(signal.SIGCONT)
    gc.collect()  # a socket that is found when its event loop is closed complains


def _header_bytes() -> int:
    """Size of the first line of the default city's truth file."""
    settings = load(SimSettings, None, {})
    return len(json.dumps(header(simulation_of(settings, 0), settings, 0), separators=(",", ":")))


def test_truth_that_cannot_be_written_stops_the_run(broker: EmbeddedMosquitto, truth_path: Path) -> None:
    with (
        listening(broker.port) as listener,
        _sim(broker.port, truth_path, limit_bytes=_header_bytes() + 100_000) as process,
    ):
        _, words = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert f"error: truth file {truth_path}: File too large" in words
        assert "Traceback" not in words
        wait_for(lambda: listener.messages, "what was sent has arrived")
        received = len(listener.messages)
    truth = read_truth(truth_path)
    assert truth.end is None
    assert 0 < received <= len(truth.messages)
    assert set(multiset(listener.messages)) <= set(written(truth))
