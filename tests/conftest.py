"""Fixtures shared by all tests: one database server a session, a fresh migrated database a test.

`CITYNET_TEST_DSN` points the suite at another server (TimescaleDB); its role must be allowed to create databases.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from psycopg import sql
from psycopg.conninfo import make_conninfo

from citynet.runtime import log
from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from citynet_ingest.store.migrate import migrate
from tests.seeds import seed_of

_MEMORY_BYTES_MIN = 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """A suite that a script starts in the background has SIGINT ignored, and would hand that on to the commands whose
    answer to Ctrl-C it tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _keep_bytecode()
    _close_wakers()
    # Time says nothing here: a busy machine is slow to draw and slow to run.
    settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    is_for_news = config.option.markexpr == "nightly" or os.environ.get("CITYNET_TEST_SEED") == "random"
    settings.load_profile("random" if is_for_news else "steady")
    if not is_for_news:
        _draw_nothing_from_code()


def _keep_bytecode() -> None:
    """Where PYTHONDONTWRITEBYTECODE is set, every command that a test starts would compile the whole program anew, which is
    more than half of what its start costs. The bytecode is kept beside the tools, not in the source tree."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(sys.prefix) / "bytecode"))


def _draw_nothing_from_code() -> None:
    """Hypothesis also draws constants of whatever code of ours is imported at that moment. That depends on what this process
    has run before, so one test would draw otherwise alone than beside others, and in one run otherwise than in the next."""
    if hasattr(providers, "_get_local_constants"):  # not in its oldest versions
        nothing = providers._local_constants
        providers._get_local_constants = lambda: nothing


def _close_wakers() -> None:
    """paho leaves the pair of sockets by which it wakes its thread to the collector. Where that finds them before the client
    they complain that nobody closed them: in whatever test is running then, or at the end of a session that passed."""
    stop = paho.Client.loop_stop

    def loop_stop(client: paho.Client) -> Any:
        code = stop(client)
        client._reset_sockets(sockpair_only=True)
        return code

    setattr(paho.Client, "loop_stop", loop_stop)  # noqa: B010  (a method is not to be assigned)


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """A command that configures logging must not leave its level and role to the next test."""
    yield
    log.reset()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test; see there."""
    return seed_of(request.node.nodeid, is_nightly=request.node.get_closest_marker("nightly") is not None)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' unprivileged user can reach (pytest's own tmp_path is not, when we are root)."""
    with tempfile.TemporaryDirectory(prefix="citynet-test-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """The database server under test: the embedded one, or the one that CITYNET_TEST_DSN names."""
    if given := os.environ.get("CITYNET_TEST_DSN"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="citynet-test-", dir=_memory_disk(), ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o711)
        with EmbeddedPostgres(path, {"max_wal_size": "256MB"}) as server:
            yield server.dsn()


def _memory_disk() -> str | None:
    """A folder in memory, if there is plenty. Nobody kills the shared server's machine, so its syncs prove nothing; those
    tests that kill a database have one of their own, on the disk."""
    place = Path("/dev/shm")  # noqa: S108  (a folder of our own in it)
    if not os.access(place, os.W_OK | os.X_OK):
        return None
    free_bytes = min(shutil.disk_usage(place).free, psutil.virtual_memory().available)
    return str(place) if free_bytes >= _MEMORY_BYTES_MIN else None


@pytest.fixture(scope="session")
def template(server_dsn: str) -> str:
    """A database with the schema, to be copied; none on a server that was given to us, where a copy may be forbidden
    (TimescaleDB's workers are connected to every database)."""
    if os.environ.get("CITYNET_TEST_DSN"):
        return ""
    name = "citynet_test_template"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(make_conninfo(server_dsn, dbname=name))
    return name


@contextmanager
def fresh_database(server_dsn: str, template: str = "") -> Iterator[str]:
    """A database of its own: a copy of `template`, or an empty one."""
    name = f"citynet_test_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template:  # copied by file: without a checkpoint's wait for a disk that is the quickest
        create += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(create)
    yield make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh database without our schema."""
    with fresh_database(server_dsn) as dsn:
        yield dsn


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """A fresh database with the schema."""
    with fresh_database(server_dsn, template) as dsn:
        if not template:
            migrate(dsn)
        yield dsn


@pytest.fixture
def broker(folder: Path) -> Iterator[EmbeddedMosquitto]:
    """A private Mosquitto; the test may kill and restart it."""
    with EmbeddedMosquitto(folder / "broker") as server:
        yield server
