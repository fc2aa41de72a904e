"""Bearer tokens ``cn_…``: how they are made, recognised in a header, and what the database keeps of them.

A token is 256 random bits, so its SHA-256 is stored without salt or stretching: there is nothing to guess.
"""

from __future__ import annotations

import base64
import hashlib
import re

PREFIX = "cn_"
SECRET_BYTES = 32
_TOKEN = re.compile(r"cn_[A-Za-z0-9_-]{43}")


def mint(random_bytes: bytes) -> str:
    """The token for 32 random bytes."""
    if len(random_bytes) != SECRET_BYTES:
        raise ValueError(f"a token needs {SECRET_BYTES} random bytes, not {len(random_bytes)}")
    return PREFIX + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def digest(token: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None if there is none that could be ours."""
    scheme, _, token = (header or "").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and _TOKEN.fullmatch(token) else None
