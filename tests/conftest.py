"""Fixtures shared by all tests: one database server a session, a fresh migrated database a test.

`CITYNET_TEST_DSN` points the suite at another server (TimescaleDB); its role must be allowed to create databases.
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from citynet.runtime import log
from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from citynet_ingest.store.migrate import migrate


def pytest_configure() -> None:
    """A suite that a script starts in the background has SIGINT ignored, and would hand that on to the commands whose
    answer to Ctrl-C it tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Time says nothing here: a busy machine is slow to draw and slow to run.
    settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("house")


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """A command that configures logging must not leave its level and role to the next test."""
    yield
    log.reset()


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
    with tempfile.TemporaryDirectory(prefix="citynet-test-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o711)
        with EmbeddedPostgres(path) as server:
            yield server.dsn()


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh database without our schema."""
    name = f"citynet_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def dsn(empty_dsn: str) -> str:
    """A fresh database with the schema."""
    migrate(empty_dsn)
    return empty_dsn


@pytest.fixture
def broker(folder: Path) -> Iterator[EmbeddedMosquitto]:
    """A private Mosquitto; the test may kill and restart it."""
    with EmbeddedMosquitto(folder / "broker") as server:
        yield server
