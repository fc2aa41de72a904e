"""The gate: how many requests, and how many bytes of them, may be inside at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from citynet_ingest import metrics
from citynet_ingest.push.problems import Problem
from citynet_ingest.push.settings import PushSettings


class Gate:
    """Lets requests in while there is room. Not thread-safe: it lives on the event loop."""

    def __init__(self, settings: PushSettings) -> None:
        self._settings = settings
        self._inside: Counter[str] = Counter()
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def entered(self, source: str, body_bytes: int) -> Iterator[None]:
        """Room for one request of `source` with a body of at most `body_bytes`. Problem 429 or 503 if there is none."""
        settings = self._settings
        if self._requests >= settings.inflight_max:
            raise Problem("too-many", f"At most {settings.inflight_max} requests at once.")
        if self._inside[source] >= settings.inflight_per_source_max:
            raise Problem("too-many-of-source", f"At most {settings.inflight_per_source_max} at once.")
        if self._bytes + body_bytes > settings.inflight_bytes_max:
            raise Problem("too-many", f"At most {settings.inflight_bytes_max} bytes of bodies at once.")
        self._requests += 1
        self._inside[source] += 1
        self._bytes += body_bytes
        metrics.PUSH_INFLIGHT.set(self._requests)
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= body_bytes
            self._inside[source] -= 1
            if not self._inside[source]:
                del self._inside[source]
            metrics.PUSH_INFLIGHT.set(self._requests)
