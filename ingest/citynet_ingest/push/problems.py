"""Problem details (RFC 9457) of the HTTP front."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

URN = "urn:citynet:problem:"
MEDIA_TYPE = "application/problem+json"
RETRY_S = "2"

KINDS: dict[str, tuple[HTTPStatus, str]] = {
    "bad-request": (HTTPStatus.BAD_REQUEST, "The request cannot be understood"),
    "unauthenticated": (HTTPStatus.UNAUTHORIZED, "A valid token is needed"),
    "forbidden": (HTTPStatus.FORBIDDEN, "This token is another source's"),
    "not-found": (HTTPStatus.NOT_FOUND, "There is no such thing"),
    "method-not-allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    "slow-body": (HTTPStatus.REQUEST_TIMEOUT, "The body took too long"),
    "gap": (HTTPStatus.CONFLICT, "Earlier records are missing"),
    "body-too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported-media-type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type is not supported"),
    "unreadable-batch": (HTTPStatus.UNPROCESSABLE_ENTITY, "The batch cannot be read"),
    "idempotency-key-reused": (HTTPStatus.UNPROCESSABLE_ENTITY, "The key came with another body before"),
    "too-many-of-source": (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests of this source at once"),
    "too-many": (HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests at once"),
    "broker-away": (HTTPStatus.SERVICE_UNAVAILABLE, "The broker does not answer"),
    "database-away": (HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer"),
    "no-answer": (HTTPStatus.SERVICE_UNAVAILABLE, "The COMMIT did not come in time"),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "The server made a mistake"),
}
_AGAIN = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass
class Problem(Exception):  # noqa: N818  (RFC 9457 calls it a problem)
    """What a request is answered with; `kind` is a key of `KINDS`, `more` holds members of that type."""

    kind: str
    detail: str
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> HTTPStatus:
        return KINDS[self.kind][0]

    def body(self, instance: str) -> dict[str, Any]:
        """The JSON object of the answer to a request for the path `instance`."""
        known = {"type": URN + self.kind, "title": KINDS[self.kind][1], "status": int(self.status)}
        return {**known, "detail": self.detail, "instance": instance, **self.more}

    def headers(self) -> dict[str, str]:
        if self.status == HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": 'Bearer realm="citynet"'}
        return {"Retry-After": RETRY_S} if self.status in _AGAIN else {}
