"""Who asks: bearer tokens ``cn_…`` in the Authorization header, their roles, and the brief memory of verified ones.

A token in the URL is never looked at; URLs end up in logs and histories.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from citynet.tokens import bearer, digest
from citynet_api.problems import Problem

CACHE_ENTRIES_MAX = 1024


class Role(IntEnum):
    """Roles, each including those below it."""

    viewer = 1
    operator = 2
    admin = 3


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a verified token."""

    name: str
    role: Role
    expires_at: datetime | None = None


class Lookup(Protocol):
    """Finds the owner of a live token by its digest: neither expired nor revoked, else None."""

    async def __call__(self, digest: bytes) -> Principal | None: ...


class Clock(Protocol):
    """Monotonic seconds."""

    def __call__(self) -> float: ...


def unauthenticated() -> Problem:
    """The same answer for a missing, wrong, expired and revoked token: a stranger learns nothing from it."""
    return Problem(
        "unauthenticated",
        "Send a valid token in the header: Authorization: Bearer cn_…",
        headers={"WWW-Authenticate": 'Bearer realm="citynet"'},
    )


def require(principal: Principal, role: Role) -> Principal:
    """Let `principal` pass if its role suffices. Problem 403 naming the role that is needed."""
    if principal.role < role:
        raise Problem(
            "forbidden",
            f"This needs the role {role.name}; the token {principal.name!r} is of the role {principal.role.name}.",
            more={"role_needed": role.name, "role": principal.role.name},
            headers={"WWW-Authenticate": 'Bearer realm="citynet", error="insufficient_scope"'},
        )
    return principal


class Authenticator:
    """Verifies tokens; remembers good ones for `cache_s` seconds, so a revocation takes at most that long to bite."""

    def __init__(self, lookup: Lookup, cache_s: float, clock: Clock) -> None:
        self._lookup = lookup
        self._cache_s = cache_s
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def verify(self, header: str | None) -> Principal:
        """The owner of the token in an Authorization header. Problem 401 if there is none."""
        token = bearer(header)
        if token is None:
            raise unauthenticated()
        key = digest(token)
        now = self._clock()
        remembered = self._known.get(key)
        if remembered is not None and now < remembered[0]:
            return remembered[1]
        principal = await self._lookup(key)
        if principal is None:
            self._known.pop(key, None)
            raise unauthenticated()
        self._remember(key, now + self._cache_s, principal)
        return principal

    def _remember(self, key: bytes, until: float, principal: Principal) -> None:
        self._known[key] = (until, principal)
        self._known.move_to_end(key)
        while len(self._known) > CACHE_ENTRIES_MAX:
            self._known.popitem(last=False)
