"""SQL by name: each query is a file in ``sql/``; values are always parameters, and no query is composed from text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> bytes:
    """The text of ``sql/{name}.sql``. FileNotFoundError if there is none: a mistake of ours, found by the tests."""
    return files("citynet_api").joinpath("sql", f"{name}.sql").read_bytes()


def names() -> list[str]:
    """Every query of the room."""
    return sorted(
        entry.name.removesuffix(".sql")
        for entry in files("citynet_api").joinpath("sql").iterdir()
        if entry.name.endswith(".sql")
    )
