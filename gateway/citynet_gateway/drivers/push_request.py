"""HTTP requests of the push driver, without IO: head, tokens, what is refused with which problem (RFC 9110, 9457)."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus

from citynet import formats
from citynet.ids import is_id

HEAD_BYTES_MAX = 8_192
RETRY_AFTER_S = 5
_URN = "urn:citynet:problem:"
_LINE = re.compile(r"([A-Z]{1,16}) (/\S{0,512}) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*(.*?)[ \t]*")
_KEY = re.compile(r"[ -~]{1,255}")
_PATH = "/push/"

_KINDS: dict[str, tuple[HTTPStatus, str]] = {
    "bad-request": (HTTPStatus.BAD_REQUEST, "The request cannot be understood"),
    "unauthenticated": (HTTPStatus.UNAUTHORIZED, "A valid token is needed"),
    "forbidden": (HTTPStatus.FORBIDDEN, "This token is not for this device"),
    "not-found": (HTTPStatus.NOT_FOUND, "There is no such thing"),
    "method-not-allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    "slow-request": (HTTPStatus.REQUEST_TIMEOUT, "The request took too long"),
    "length-required": (HTTPStatus.LENGTH_REQUIRED, "The body's length is needed"),
    "body-too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported-media-type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type is not supported"),
    "unreadable": (HTTPStatus.BAD_REQUEST, "The body cannot be understood"),
    "head-too-large": (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head is too large"),
    "busy": (HTTPStatus.SERVICE_UNAVAILABLE, "The gateway takes nothing more for now"),
}


class Problem(Exception):  # noqa: N818  (RFC 9457 calls it a problem)
    """What a request is refused with; `kind` is a key of `_KINDS`."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        self.status, self.title = _KINDS[kind]
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. Header names are in lower case."""

    method: str
    path: str
    keep: bool
    headers: Mapping[str, str]
    length: int

    @property
    def device(self) -> str:
        return self.path.removeprefix(_PATH)

    @property
    def expects_go(self) -> bool:
        """Whether the client waits for a 100 before it sends its body."""
        return self.headers.get("expect", "").lower() == "100-continue"


def parse_head(data: bytes) -> Head:
    """The head without its empty line. Problem if it is none, or if its body cannot be delimited."""
    line, *rest = data.decode("latin-1").split("\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise Problem("bad-request", "The request line is none of HTTP/1.")
    headers: dict[str, str] = {}
    for item in rest:
        found = _HEADER.fullmatch(item)
        name = found[1].lower() if found else ""
        if found is None or (name in headers and name in ("content-length", "authorization", "idempotency-key")):
            raise Problem("bad-request", f"This header is none, or is there twice: {item[:80]!r}")
        headers[name] = found[2]
    if "transfer-encoding" in headers:
        raise Problem("length-required", "Send the body with a Content-Length, not in chunks.")
    length = headers.get("content-length", "")
    if not length and match[1] == "POST":
        raise Problem("length-required", "Content-Length is absent.")
    if length and not (length.isascii() and length.isdigit() and len(length) < 16):
        raise Problem("bad-request", f"Content-Length: {length[:40]!r} is no length.")
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection and (match[3] == "1" or "keep-alive" in connection)
    return Head(match[1], match[2], keep, headers, int(length or 0))


def check(head: Head, doors: Doors | None, body_bytes_max: int) -> str:
    """The content type of a push that may go on to its body. Problem if it may not."""
    if not head.path.startswith(_PATH) or not is_id(head.device):
        raise Problem("not-found", "Push to /push/{device}; a device is 1 to 64 of A-Z a-z 0-9 . _ -")
    if head.method != "POST":
        raise Problem("method-not-allowed", "Only POST.")
    if doors is not None:
        doors.check(head.headers.get("authorization", ""), head.device)
    if head.length > body_bytes_max:
        raise Problem("body-too-large", f"{head.length} bytes, at most {body_bytes_max}.")
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "Send the body without a content encoding.")
    content_type = head.headers.get("content-type", "")
    if not formats.is_known(content_type):
        raise Problem("unsupported-media-type", f"{content_type[:80]!r}; known are application/json and SenML.")
    key = head.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem("bad-request", "Idempotency-Key: 1 to 255 printable ASCII characters.")
    if not head.length:
        raise Problem("bad-request", "The body is empty.")
    return content_type


class Doors:
    """Bearer tokens and the devices each of them is for."""

    def __init__(self, text: str) -> None:
        """`text`: a token a line, behind it shell patterns of devices (all if there are none); ``#`` begins a comment.

        Raises:
            ValueError: a token that is too short, or none at all.
        """
        self._doors: list[tuple[bytes, tuple[str, ...]]] = []
        for number, line in enumerate(text.splitlines(), 1):
            token, *patterns = line.partition("#")[0].split() or [""]
            if token and len(token) < 16:
                raise ValueError(f"line {number}: a token has at least 16 characters")
            if token:
                self._doors.append((token.encode(), tuple(patterns) or ("*",)))
        if not self._doors:
            raise ValueError("no token")

    def check(self, authorization: str, device: str) -> None:
        """Problem unless the token is one of ours and for this device."""
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
        mine = [patterns for known, patterns in self._doors if hmac.compare_digest(known, given)]
        if not mine:
            raise Problem("unauthenticated", "Authorization: Bearer, with a token of this gateway.")
        if not any(fnmatchcase(device, pattern) for patterns in mine for pattern in patterns):
            raise Problem("forbidden", f"The token is not for {device}.")


def response(status: HTTPStatus, body: Mapping[str, object], *, keep: bool, problem: bool = False) -> bytes:
    """An answer with a JSON body."""
    data = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {int(status)} {status.phrase}",
        f"Content-Type: application/{'problem+' if problem else ''}json",
        f"Content-Length: {len(data)}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"Retry-After: {RETRY_AFTER_S}")
    elif status == HTTPStatus.UNAUTHORIZED:
        lines.append('WWW-Authenticate: Bearer realm="citynet"')
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: POST")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + data


def refusal(problem: Problem, path: str, *, keep: bool) -> bytes:
    """An answer with a problem's details."""
    body = {
        "type": _URN + problem.kind,
        "title": problem.title,
        "status": int(problem.status),
        "detail": problem.detail,
        "instance": path,
    }
    return response(problem.status, body, keep=keep, problem=True)
