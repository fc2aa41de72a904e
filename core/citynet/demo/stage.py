"""The stage: embedded servers, settings files, and the role processes of the demo."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from citynet.demo.processes import RoleError, Supervisor
from citynet.errors import CitynetError
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres

_READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What the caller of the demo may choose."""

    folder: Path
    seed: int
    gateways: tuple[str, ...] = ("gw-01", "gw-02")
    api_port: int = 0
    rules: tuple[Path, ...] = ()


class Stage:
    """The demo's city, from `start` to the end of the with-block; nothing is left running."""

    def __init__(self, settings: StageSettings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.folder = settings.folder
        self.say = say
        self.truth = self.folder / "truth.jsonl"
        self.api_port = settings.api_port or child.free_port()
        self.supervisor = Supervisor(self.folder / "logs", say)
        self.token = ""
        self._servers = ExitStack()
        self.postgres = EmbeddedPostgres(self.folder)
        self.broker = EmbeddedMosquitto(self.folder / "broker")
        self.config = self.folder / "citynet.toml"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.supervisor.stop()
        self._servers.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.api_port}/"

    def dsn(self) -> str:
        return self.postgres.dsn("citynet")

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.dsn(), autocommit=True)

    def start(self) -> None:
        """Start everything, in the order in which one needs the other; returns when the simulator sends."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self._start_servers()
        self._write_settings()
        self._citynet("db", "migrate", "--config", str(self.config))
        self.supervisor.start("ingest", ["ingest", "run", "--config", str(self.config)])
        self.supervisor.start("api", ["api", "run", "--config", str(self.config)])
        for gateway in self.settings.gateways:
            self.supervisor.start(gateway, ["gateway", "run", "--config", str(self.folder / f"{gateway}.toml")])
        self.token = self._token("demo-operator", "operator")
        self._wait("the api answers", self._is_api_ready)
        self._register()
        self._wait("the gateways are online", self._are_gateways_online)
        self.supervisor.start(
            "sim", ["sim", "run", "--config", str(self.config), "--truth", str(self.truth)], keeps_running=False
        )
        self._wait("the simulator sends", lambda: self.truth.exists() and b'"msg"' in self.truth.read_bytes()[-65536:])

    def _start_servers(self) -> None:
        self.say("starting PostgreSQL (embedded) and Mosquitto (private)")
        self._servers.enter_context(self.postgres)
        self._servers.enter_context(self.broker)
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'citynet'").fetchone():
                connection.execute("CREATE DATABASE citynet")

    def _write_settings(self) -> None:
        gateways = json.dumps(list(self.settings.gateways))
        text = (
            f"[log]\nformat = 'json'\n\n[broker]\nport = {self.broker.port}\n\n[database]\ndsn = {json.dumps(self.dsn())}\n\n"
            f"[ingest]\nrules = {json.dumps([str(path) for path in self.settings.rules])}\n\n[api]\nport = {self.api_port}\n\n"
            f"[sim]\nseed = {self.settings.seed}\ngateways = {gateways}\nbroker.port = {self.broker.port}\n"
        )
        self.config.write_text(text)
        for gateway in self.settings.gateways:
            (self.folder / f"{gateway}.toml").write_text(
                f"[log]\nformat = 'json'\n\n[gateway]\nid = '{gateway}'\n"
                f"data_dir = {json.dumps(str(self.folder / gateway))}\n"
                f"uplink.port = {self.broker.port}\nlocal.port = {self.broker.port}\nstatus_interval_s = 1\n"
            )

    def _citynet(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "citynet", *arguments], capture_output=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise RoleError(
                f"citynet {' '.join(arguments[:2])} failed:\n{done.stderr.decode(errors='replace')[-2000:]}"
            )
        return done.stdout.decode()

    def _token(self, name: str, role: str) -> str:
        answer = self._citynet("api", "token", "create", name, "--role", role, "--config", str(self.config), "--json")
        return str(json.loads(answer)["token"])

    def _register(self) -> None:
        """Register the city's devices through the same endpoint that a real city uses."""
        documents = self._citynet("sim", "devices", "--config", str(self.config), "--json")
        admin = self._token("demo-admin", "admin")
        request = urllib.request.Request(  # noqa: S310  (our own loopback address)
            f"{self.address}v1/devices",
            data=documents.encode(),
            headers={"Authorization": f"Bearer {admin}", "Content-Type": "application/x-ndjson"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                answer.read()
        except urllib.error.HTTPError as error:
            raise CitynetError(f"registering the devices: {error.read().decode(errors='replace')[:500]}") from None

    def _is_api_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}ready", timeout=2) as answer:  # noqa: S310
                return int(answer.status) == 200
        except OSError:
            return False

    def _are_gateways_online(self) -> bool:
        with self.connect() as connection:
            row = connection.execute("SELECT count(*) FROM gateway WHERE online").fetchone()
        return row is not None and int(str(row[0])) >= len(self.settings.gateways)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not condition():
            self.supervisor.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {role.name}\n{role.tail(5)}" for role in self.supervisor.roles.values())
                raise RoleError(f"not within {_READY_TIMEOUT_S:.0f} s: {what}\n{logs}")
            time.sleep(0.1)
