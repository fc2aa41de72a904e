"""The error of a worker that is no longer alone."""

from __future__ import annotations

from citynet.errors import CitynetError


class FencedError(CitynetError):
    """Another worker of the same shards wrote to the database; this one must stop and start afresh."""
