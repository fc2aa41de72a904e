"""Named SQL: one statement a file in this package's ``sql`` folder."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def text(name: str) -> bytes:
    """The statement in ``sql/<name>.sql``."""
    return (files("citynet_ingest.store") / "sql" / f"{name}.sql").read_bytes()
