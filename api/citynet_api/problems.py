"""Problem details (RFC 9457): the one shape of every error that leaves the api.

`type` is a stable URN that a program may branch on; `title` never changes for a type; `detail` is for the person who
reads it; `errors` names each parameter that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

URN = "urn:citynet:problem:"
MEDIA_TYPE = "application/problem+json"


class Fault(BaseModel):
    """One mistake of a request."""

    parameter: str = Field(description="the parameter or field, such as `limit` or `body.series[0].metric`")
    location: str = Field(description="query, path, header or body")
    detail: str = Field(description="what is wrong with it")


class ProblemBody(BaseModel):
    """Problem details, RFC 9457; members beyond these belong to the type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="stable URN of the kind of problem")
    title: str
    status: int
    detail: str = ""
    instance: str = Field("", description="path of the request")
    errors: list[Fault] = Field([], description="each parameter that is wrong")


# Every type there is, with its status and title. The README of the API is generated from here through OpenAPI.
KINDS: dict[str, tuple[HTTPStatus, str]] = {
    "invalid-request": (HTTPStatus.UNPROCESSABLE_ENTITY, "The request has mistakes"),
    "unreadable-body": (HTTPStatus.BAD_REQUEST, "The body cannot be read"),
    "bad-request": (HTTPStatus.BAD_REQUEST, "The request cannot be understood"),
    "unauthenticated": (HTTPStatus.UNAUTHORIZED, "A valid token is needed"),
    "forbidden": (HTTPStatus.FORBIDDEN, "The role of this token is too low"),
    "not-found": (HTTPStatus.NOT_FOUND, "There is no such thing"),
    "method-not-allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    "already-acknowledged": (HTTPStatus.CONFLICT, "Somebody else acknowledged this alert"),
    "body-too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported-media-type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type is not supported"),
    "http-error": (HTTPStatus.BAD_REQUEST, "The request cannot be served"),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "The server made a mistake"),
    "database-away": (HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer"),
    "query-timeout": (HTTPStatus.SERVICE_UNAVAILABLE, "The query took too long"),
    "schema-unknown": (HTTPStatus.SERVICE_UNAVAILABLE, "The database has not the schema this api needs"),
    "too-many-streams": (HTTPStatus.SERVICE_UNAVAILABLE, "Too many event streams are open"),
    "stopping": (HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping"),
}


@dataclass
class Problem(Exception):  # noqa: N818  (RFC 9457 calls it a problem)
    """A problem to answer the request with; `kind` is a key of `KINDS`.

    Attributes:
        kind: what sort of problem.
        detail: for the person who reads it; never a secret, never a host name.
        errors: the parameters that are wrong.
        more: members of this type, such as who acknowledged an alert and when.
        headers: headers of the answer.
        status: only for "http-error", whose status is the framework's.
    """

    kind: str
    detail: str = ""
    errors: Sequence[Fault] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self.detail)

    @property
    def code(self) -> int:
        """HTTP status."""
        return self.status or int(KINDS[self.kind][0])

    def body(self, instance: str) -> dict[str, Any]:
        """The JSON object of the answer to a request for the path `instance`."""
        known = ProblemBody(
            type=URN + self.kind,
            title=KINDS[self.kind][1],
            status=self.code,
            detail=self.detail,
            instance=instance,
            errors=list(self.errors),
        ).model_dump(exclude_defaults=True)
        return {**known, **self.more}


def not_found(what: str, name: object) -> Problem:
    """A 404 that says what was looked for."""
    return Problem("not-found", f"There is no {what} {str(name)[:80]!r}.")


def wrong(parameter: str, detail: str, location: str = "query") -> Problem:
    """A 422 about one parameter."""
    return Problem(
        "invalid-request", f"{parameter}: {detail}", [Fault(parameter=parameter, location=location, detail=detail)]
    )
