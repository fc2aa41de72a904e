"""Where benchmarks run: private servers, a fresh database a line, and the role processes under test."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from citynet.errors import CitynetError
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from citynet_ingest.registry import Registry
from citynet_ingest.store import sql
from citynet_ingest.store.migrate import migrate
from citynet_ingest.store.server import Server

POSTGRES_OPTIONS = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
RULES = Path(__file__).with_name("rules.toml")
_STOP_GRACE_S = 30.0
_READY_S = 60.0
_REGISTERED_AT_ONCE = 20_000
Connection = psycopg.Connection[tuple[object, ...]]


class BenchError(CitynetError):
    """A measurement did not come about: it would not be true."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A broker of our own and the server that is measured."""

    folder: Path
    broker: EmbeddedMosquitto
    server_dsn: str
    server: Server
    say: Callable[[str], None]
    is_quick: bool

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh database with the schema, gone afterwards."""
        with fresh_database(self.server_dsn) as dsn:
            yield dsn

    def facts(self) -> dict[str, object]:
        """What the figures belong to; nothing that names the machine."""
        version = self.server.version
        return {
            "cores": len(os.sched_getaffinity(0)),
            "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "postgresql": f"{version // 10_000}.{version % 10_000}",
            "timescaledb": self.server.timescale,
        }


@contextmanager
def open_stage(dsn: str | None, say: Callable[[str], None], *, quick: bool) -> Iterator[Stage]:
    """A broker and a server; everything is gone afterwards but the server that was named."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="citynet-bench-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o711)
        server_dsn = dsn or stack.enter_context(EmbeddedPostgres(folder, POSTGRES_OPTIONS)).dsn()
        broker = stack.enter_context(EmbeddedMosquitto(folder / "broker", queued_bytes_max=2 << 30))
        with fresh_database(server_dsn) as probed:
            server, _ = migrate(probed)
        yield Stage(folder, broker, server_dsn, server, say, quick)


@contextmanager
def fresh_database(server_dsn: str) -> Iterator[str]:
    """A migrated database of our own on a server, dropped afterwards. Needs CREATEDB."""
    name = f"citynet_bench_{secrets.token_hex(4)}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        dsn = make_conninfo(server_dsn, dbname=name)
        migrate(dsn)
        yield dsn
    finally:
        with psycopg.connect(server_dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def register(dsn: str, sources: dict[str, str]) -> None:
    """Make series known beforehand: registration happens once in the life of a series, and is no part of its rate."""
    registry = Registry()
    with psycopg.connect(dsn, autocommit=True) as connection:
        names = list(sources)
        for first in range(0, len(names), _REGISTERED_AT_ONCE):
            registry.add(connection, {name: sources[name] for name in names[first : first + _REGISTERED_AT_ONCE]})
        connection.execute("ANALYZE device, series")


@dataclass(frozen=True, slots=True)
class Process:
    """A role under test."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """BenchError with the end of its log if it has ended."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
            raise BenchError(f"{self.log.stem} ended with exit code {self.process.returncode}:\n{tail}")

    def wait_for(self, words: str) -> None:
        """Block until its log holds these words. BenchError after a minute."""
        deadline = time.monotonic() + _READY_S
        while words not in self.log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.log.stem}: no {words!r} after {_READY_S:.0f} s")
            time.sleep(0.05)

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory of a worker now and at its peak: of several the largest."""
        now, peak = zip(*(memory_bytes(pid) for pid in self.workers()), strict=True)
        return max(now), max(peak)

    def workers(self) -> list[int]:
        """Process ids of the workers: its own, or those that it has started as a supervisor."""
        return [started.pid for started in psutil.Process(self.process.pid).children()] or [self.process.pid]


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident memory of a process now and at its peak, as the kernel keeps it."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "VmHWM"):
            found[key] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


@contextmanager
def worker(stage: Stage, dsn: str, rules: Sequence[Path] = (), workers: int = 1) -> Iterator[Process]:
    """An ingest worker with default settings as its own process, shipped rules armed, and `rules` besides.

    With more `workers` it is their supervisor's process.
    """
    lines = [f"[ingest]\nworkers = {workers}\nrules = {json.dumps([str(path) for path in rules])}"]
    with role(stage, dsn, "ingest", ["ingest", "run"], lines) as process:
        yield process


@contextmanager
def role(stage: Stage, dsn: str, name: str, command: Sequence[str], tables: Sequence[str]) -> Iterator[Process]:
    """A ``citynet`` process with a settings file of its own."""
    config = settings_file(stage, dsn, name, tables)
    log = stage.folder / f"{name}.log"
    with log.open("wb") as output:
        process = child.spawn([sys.executable, "-m", "citynet", *command, "--config", str(config)], output)
    try:
        yield Process(process, log)
    finally:
        child.stop(process, grace_s=_STOP_GRACE_S)


def settings_file(stage: Stage, dsn: str, name: str, tables: Sequence[str]) -> Path:
    """Settings for a role: this broker, that database."""
    config = stage.folder / f"{name}.toml"
    shared = f"[broker]\nport = {stage.broker.port}\n[database]\ndsn = {json.dumps(dsn)}\n[log]\nformat = 'json'\n"
    config.write_text(shared + "\n".join(tables) + "\n")
    return config


def stored(connection: Connection) -> int:
    """Readings that the books of delivery say are stored."""
    row = connection.execute(
        "SELECT (SELECT coalesce(sum(stored), 0) FROM stream_cursor)"
        " + (SELECT coalesce(sum(stored), 0) FROM direct_tally)"
    ).fetchone()
    return int(str(row[0])) if row else 0


def has_columnstore(connection: Connection) -> bool:
    """Whether ingest would COPY straight into the columnstore there."""
    row = connection.execute(sql.text("has_columnstore")).fetchone()
    return bool(row and row[0])


def cpu_s(pid: int, name: str = "") -> float | None:
    """Processor time that a process has used, all threads; None if it is not here, or is not called `name`."""
    try:
        found = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
        if name and found != name:
            return None
        return child.cpu_s(pid)
    except OSError:
        return None


def writers(connection: Connection) -> list[int]:
    """Process ids, on its server, of the sessions in which ingest writes."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'citynet-ingest%'"
    ).fetchall()
    return [int(str(row[0])) for row in rows]


def now_us() -> int:
    """µs since 1970, cut to the second."""
    return time.time_ns() // 1_000_000_000 * 1_000_000
