"""A running api for the tests: in this process over ASGI, or as the real command on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg

from citynet_api.app import create_app
from citynet_api.settings import ApiSettings
from tests.integration import api_seed
from tests.patience import DEADLINE_S

VIEWER = "cn_" + "V" * 43
OPERATOR = "cn_" + "O" * 43
OTHER = "cn_" + "P" * 43
ADMIN = "cn_" + "A" * 43
PREFIX = "urn:citynet:problem:"
# Bounds by which the api gives up on a slow database or client; no test is about the machine's.
PATIENT = {"pool_wait_s": 60, "connect_timeout_s": 60, "statement_timeout_s": DEADLINE_S}


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def add_tokens(connection: api_seed.Connection) -> None:
    for name, role, token in (
        ("vera", "viewer", VIEWER),
        ("olga", "operator", OPERATOR),
        ("pete", "operator", OTHER),
        ("ada", "admin", ADMIN),
    ):
        api_seed.add_token(connection, name, role, token)


@contextmanager
def database(dsn: str) -> Iterator[api_seed.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def running(dsn: str, token: str | None = OPERATOR, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The application with its watchers, asked directly; unforeseen errors are answered, not raised."""
    app = create_app(ApiSettings(**(PATIENT | settings)), {"conninfo": dsn})
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = as_(token) if token else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
            yield client


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that an answer is this problem; returns its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == PREFIX + kind, body
    assert body["status"] == status
    assert body["title"]
    return body


PAGES_MAX = 500  # a walk that is longer goes in circles


async def walk(client: httpx.AsyncClient, path: str, **parameters: Any) -> AsyncIterator[dict[str, Any]]:
    """The pages of a list, one after the other."""
    cursor: dict[str, str] = {}
    for _ in range(PAGES_MAX):
        answer = await client.get(path, params={**parameters, **cursor})
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if answer.json()["next"] is None:
            return
        cursor = {"cursor": answer.json()["next"]}
    raise AssertionError(f"{path}: more than {PAGES_MAX} pages")


async def pages(client: httpx.AsyncClient, path: str, **parameters: Any) -> list[list[dict[str, Any]]]:
    """The items of every page of a list."""
    return [page["items"] async for page in walk(client, path, **parameters)]


def named(body: dict[str, Any]) -> list[str]:
    """The parameters that a problem names."""
    return [fault["parameter"] for fault in body["errors"]]


def until(condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
    """Poll a condition; fail loudly at the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)


async def until_async(condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
    """The same, while the event loop goes on."""
    async with asyncio.timeout(within_s):
        for _ in iter(condition, True):
            await asyncio.sleep(0.01)
    assert condition(), what


class Served:
    """``citynet api run`` as a process of its own."""

    def __init__(self, dsn: str, **settings: Any) -> None:
        environment = {**os.environ, "CITYNET_DATABASE_DSN": dsn, "CITYNET_API_PORT": "0", "CITYNET_LOG_FORMAT": "json"}
        settings = PATIENT | {"stream_heartbeat_s": 0.3, "stop_s": 30} | settings
        environment |= {f"CITYNET_API_{key.upper()}": str(value) for key, value in settings.items()}
        command = [sys.executable, "-m", "citynet", "api", "run"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: self._find("listening") is not None or self.process.poll() is not None, "listening")
        found = self._find("listening")
        assert found is not None, self.lines
        self.url: str = found["url"].rstrip("/")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})

    def _find(self, event: str) -> dict[str, Any] | None:
        return next((line for line in list(self.lines) if line["event"] == event), None)

    def stop(self, within_s: float = DEADLINE_S) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(within_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(DEADLINE_S)
            if self.process.stderr is not None:
                self.process.stderr.close()
        return status


@contextmanager
def served(dsn: str, **settings: Any) -> Iterator[Served]:
    server = Served(dsn, **settings)
    try:
        until(lambda: httpx.get(f"{server.url}/ready", timeout=DEADLINE_S).status_code == 200, "ready")
        yield server
    finally:
        server.stop()


@dataclass
class Listener:
    """A client of the event stream in a thread; keeps what it got. It comes back by its last id, as a browser does."""

    url: str
    token: str = OPERATOR
    after: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    connections: int = 0
    ended: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def ids(self) -> list[int]:
        return [int(event["id"]) for event in list(self.events) if event["event"] == "transition"]

    def __enter__(self) -> Listener:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: any(event["event"] == "ready" for event in list(self.events)), "the stream is open")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(httpx.HTTPError):
                self._once()
            self.ended += 1
            self._stop.wait(0.1)

    def _once(self) -> None:
        headers = as_(self.token) | ({} if self.after is None else {"Last-Event-ID": str(self.after)})
        with httpx.stream("GET", f"{self.url}/v1/alerts/stream", headers=headers, timeout=DEADLINE_S) as response:
            if response.status_code != 200:
                return
            self.connections += 1
            event: dict[str, Any] = {}
            for line in response.iter_lines():
                if self._stop.is_set():
                    return
                name, _, value = line.partition(": ")
                if not line and event:
                    self._take(event)
                    event = {}
                elif name == "":
                    self.comments += 1
                elif line:
                    event[name] = value

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append({**event, "data": json.loads(event["data"])})
        if "id" in event:
            self.after = int(event["id"])
