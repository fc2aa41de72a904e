"""Fixtures of the fault tests."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedPostgres
from citynet_ingest.store.migrate import migrate


@pytest.fixture
def seed() -> int:
    """Printed with the failure; CITYNET_TEST_SEED repeats a run."""
    number = int(os.environ.get("CITYNET_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"CITYNET_TEST_SEED={number}")
    return number


@pytest.fixture
def database(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A database server that the test may kill, with our schema; never the one that CITYNET_TEST_DSN names."""
    with EmbeddedPostgres(folder / "db") as server:
        migrate(server.dsn())
        yield server
