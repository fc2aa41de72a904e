"""Cursors of keyset pages: opaque to clients, and tied to the list (and its filters) that made them.

A page continues behind the last row seen, by the values of its sort key; so rows that arrive meanwhile neither repeat nor
hide another, which an offset could not promise.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

from citynet_api.problems import Problem, wrong

_CHARS_MAX = 1024


def fingerprint(filters: Mapping[str, Any]) -> int:
    """A number that changes when a list's filters change, so that a cursor is not continued with other filters."""
    return zlib.crc32(repr(sorted((key, str(value)) for key, value in filters.items())).encode())


def encode(listing: str, filters: Mapping[str, Any], key: list[str | int]) -> str:
    """The cursor behind the row whose sort key is `key`."""
    text = json.dumps([listing, fingerprint(filters), key], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, listing: str, filters: Mapping[str, Any], kinds: tuple[type, ...]) -> list[Any]:
    """The sort key in a cursor, its parts of the types `kinds`. Problem 422 naming ``cursor`` if it is not one of ours."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        name, print_, key = json.loads(raw)
    except (binascii.Error, ValueError, TypeError):
        raise _unknown() from None
    if len(cursor) > _CHARS_MAX or name != listing or not isinstance(key, list) or tuple(map(type, key)) != kinds:
        raise _unknown()
    if print_ != fingerprint(filters):
        raise wrong("cursor", "belongs to other filters; keep the filters of the first page")
    return key


def _unknown() -> Problem:
    return wrong("cursor", "is not a cursor of this list; take it from `next` of the page before")
