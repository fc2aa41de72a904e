"""What the api counts: requests by route template, refusals, event streams, the pool."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citynet.runtime.metrics import REGISTRY

REQUESTS = Counter("citynet_api_requests_total", "Requests answered", ["route", "method", "status"], registry=REGISTRY)
LATENCY_S = Histogram(
    "citynet_api_request_seconds",
    "Time to answer, event streams aside",
    ["route", "method"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
REFUSALS = Counter("citynet_api_refusals_total", "Requests refused with 401 or 403", ["status"], registry=REGISTRY)
STREAMS = Gauge("citynet_api_streams", "Event streams open", registry=REGISTRY)
STREAMS_CUT = Counter(
    "citynet_api_streams_cut_total", "Event streams cut off because the client was slow", registry=REGISTRY
)
TRANSITIONS_SENT = Counter(
    "citynet_api_transitions_sent_total", "Transitions sent over event streams", registry=REGISTRY
)
FEED_POSITION = Gauge("citynet_api_feed_position", "Id of the last transition given out", registry=REGISTRY)
DATABASE_IN_SIGHT = Gauge("citynet_api_database_in_sight", "1 while the feed sees the database", registry=REGISTRY)
POOL = Gauge("citynet_api_pool", "Counters of the connection pool", ["stat"], registry=REGISTRY)

# Anything else as a method is a scanner's invention and must not grow the label set.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """ASGI middleware that counts and times requests under their route template, never under the raw path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        stream = False

        async def send_and_look(message: Message) -> None:
            nonlocal status, stream
            if message["type"] == "http.response.start":
                status = message["status"]
                stream = any(
                    name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message["headers"]
                )
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = route_template(scope)
            REQUESTS.labels(route, method, str(status)).inc()
            if status in (401, 403):
                REFUSALS.labels(str(status)).inc()
            if not stream:
                LATENCY_S.labels(route, method).observe(time.perf_counter() - began)


def route_template(scope: Scope) -> str:
    """The template that matched, such as ``/v1/alerts/{alert_id}``; "none" for paths that nothing matched."""
    template = getattr(scope.get("route"), "path", None)
    if template is not None:
        return str(template)
    return "/console" if scope["path"].startswith("/console/") else "none"
