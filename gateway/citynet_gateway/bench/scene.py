"""A gateway process between a real broker, a device that publishes and a server that acknowledges."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from citynet import control, topics, wire
from citynet.control import Ack, Stream
from citynet.errors import CitynetError
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_gateway import toml_text

GATEWAY = "gw-bench"
PATIENCE_S = 120.0


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until `condition` holds. CitynetError with `what` after `patience_s`."""
    end_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end_s:
            raise CitynetError(f"bench: not within {patience_s:.0f} s: {what}")
        time.sleep(0.01)


def client(name: str, port: int) -> paho.Client:
    made = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    made.max_inflight_messages_set(2_000)
    made.connect("127.0.0.1", port)
    made.loop_start()
    return made


class Server:
    """Acknowledges at once, as a server with nothing else to do. `arrived` counts records, `heard` those `wanted`."""

    def __init__(self, port: int, wanted: str = "") -> None:
        self.arrived: Counter[Stream] = Counter()
        self.heard: list[tuple[float, float]] = []  # value of each reading of the metric `wanted`, and when it arrived
        self._wanted = wanted
        self._cursors: dict[tuple[Stream, int], int] = {}
        self._subscribed = threading.Event()
        self._client = client("server", port)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.subscribe([(topics.UP_ALL, 1), (topics.HELLO_ALL, 1)])
        if not self._subscribed.wait(PATIENCE_S):
            raise CitynetError("bench: the broker does not answer")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        payload = bytes(message.payload)
        if topics.parse(message.topic).kind == "hello":
            hello = control.decode(payload, control.Hello)
            for held in hello.held:
                self._say(Ack(held.ep, held.st, self._cursors.get((held.st, held.ep), 0), 100, "hello", hello.ref))
            return
        envelope = wire.decode(payload)
        header = envelope.header
        key = (header.stream, header.epoch)
        cursor = self._cursors.get(key, 0)
        if header.seq0 > cursor + 1:
            self._say(Ack(header.epoch, header.stream, cursor, 100, "gap"))
            return
        if header.last > cursor:
            self.arrived[header.stream] += header.last - cursor
            self._cursors[key] = header.last
            if self._wanted and any(name.endswith(self._wanted) for name in envelope.names):
                now_s = time.monotonic()
                self.heard += [(item.value, now_s) for item in envelope.readings() if item.metric == self._wanted]
        self._say(Ack(header.epoch, header.stream, self._cursors[key], 100))

    def _say(self, ack: Ack) -> None:
        self._client.publish(topics.ack(GATEWAY), control.encode(ack), qos=1)


class Scene:
    """One broker for both sides, and the gateway on it. Everything ends with the scene."""

    def __init__(self, folder: Path, settings: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
        self.broker = EmbeddedMosquitto(folder / "broker")
        self.metrics_port = child.free_port()
        values = {
            "id": GATEWAY, "data_dir": str(folder / "data"), "heartbeat_s": 0, "metrics_port": self.metrics_port,
            "resend_after_s": 60, "resend_after_s_max": 60, "receive_max": 2048, **(settings or {}),
        }  # fmt: skip
        self._config = folder / "citynet.toml"
        self._values = values
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.broker.start()
        lines = [
            "[log]",
            "level = 'warning'",
            "[gateway]",
            *(f"{key} = {toml_text.value(item)}" for key, item in self._values.items()),
        ]
        lines += ["[gateway.uplink]", f"port = {self.broker.port}", "[gateway.local]", f"port = {self.broker.port}"]
        self._config.write_text("\n".join(lines))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
        self.broker.stop()

    def start(self) -> float:
        """Start the gateway; seconds until it answers on its metrics port, its spool being open."""
        # Bytecode as an installation has it: without, the compiler's memory would be counted.
        environment = {
            **os.environ,
            "PYTHONPYCACHEPREFIX": str(self.folder.parent / "bytecode"),
            "MALLOC_ARENA_MAX": "1",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "citynet", "gateway"]
        subprocess.run([*command, "run", "--help"], env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        began_s = time.monotonic()
        words = [*command, "run", "--config", str(self._config)]
        self._process = subprocess.Popen(words, env=environment)  # noqa: S603
        wait_for(self._listens, "the gateway listens")
        return time.monotonic() - began_s

    def _listens(self) -> bool:
        if self._process is not None and (code := self._process.poll()) is not None:
            raise CitynetError(f"bench: the gateway ended with exit code {code} before it listened; it says why above")
        return self.sample("citynet_gateway_connected", "field") == 1

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ValueError("not started")
        return self._process.pid

    def sample(self, name: str, label: str = "") -> float:
        """A sample of the gateway's metrics; 0 while there is none. One that is stopped for a while is waited for."""
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE_S) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        found = re.search(rf"^{name}{f'{{[^}}]*{label}[^}}]*}}' if label else ''} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def memory_mib(self) -> float:
        """Resident memory now."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+)", text)
        return int(found[1]) / 1024 if found else 0.0

    def written_bytes(self) -> int:
        """Bytes that the process had the storage write: whole pages, with what the watermark takes."""
        found = re.search(
            r"^write_bytes: (\d+)", Path(f"/proc/{self.pid}/io").read_text(encoding="ascii"), re.MULTILINE
        )
        return int(found[1]) if found else 0

    def cpu_s(self) -> float:
        return child.cpu_s(self.pid)


class Governor:
    """Holds a process to a share of one core: stopped (SIGSTOP) whenever it has used more than that since the beginning.

    Works without control groups and without privileges; looks every 10 ms. What it left unused is not made up for later: the
    account is renewed every second.
    """

    def __init__(self, scene: Scene, share: float) -> None:
        self._scene = scene
        self._share = share
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._govern, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        os.kill(self._scene.pid, signal.SIGCONT)

    def _govern(self) -> None:
        since_s, used_s, stopped = time.monotonic(), self._scene.cpu_s(), False
        while not self._done.wait(0.01):
            now_s = time.monotonic()
            over = self._scene.cpu_s() - used_s > self._share * (now_s - since_s)
            if over != stopped:
                os.kill(self._scene.pid, signal.SIGSTOP if over else signal.SIGCONT)
                stopped = over
            if now_s - since_s >= 1 and not over:
                since_s, used_s = now_s, self._scene.cpu_s()
