"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedPostgres
from citynet_ingest.store.migrate import migrate


@pytest.fixture
def database(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A database server that the test may kill, with our schema; never the one that CITYNET_TEST_DSN names."""
    with EmbeddedPostgres(folder / "db") as server:
        migrate(server.dsn())
        yield server
