"""Tokens as the command line manages them: made, listed, revoked. The token itself is shown once and never stored."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from citynet.errors import CitynetError, DecodeError
from citynet.ids import check_id
from citynet.tokens import SECRET_BYTES, digest, mint
from citynet_api.queries import query

_NAME = re.compile(r"[\w.@ -]{1,64}")
_CONNECT_TIMEOUT_S = 5
DAYS_MAX = 36_500
SOURCE_ROLE = "source"  # no role of the api: it only lets one source push over HTTP


class TokenError(CitynetError):
    """A token cannot be made or found; the message says why."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, the only time that it is seen, and its row."""

    token: str
    row: dict[str, Any]


@contextmanager
def connect(conninfo: Mapping[str, Any]) -> Iterator[psycopg.Connection[DictRow]]:
    """A session of the command. TokenError in one line if the database is away or was never migrated."""
    try:
        with psycopg.connect(
            **{"connect_timeout": _CONNECT_TIMEOUT_S, **conninfo}, autocommit=True, row_factory=dict_row
        ) as connection:
            connection.execute("SET timezone = 'UTC'")
            yield connection
    except psycopg.errors.UndefinedTable:
        raise TokenError("the database has no table of tokens; run: citynet db migrate") from None
    except psycopg.OperationalError as error:
        raise TokenError(f"database: {(str(error).strip().splitlines() or ['no answer'])[-1]}") from None


def create(
    connection: psycopg.Connection[DictRow], name: str, role: str, expires_days: int | None, source: str | None = None
) -> Minted:
    """Make a token of a role of the api, or of the role ``source``, which may push as `source` and nothing else.

    TokenError for a name that is taken or not usable as one, and for a source without its role or the other way round.
    """
    if (role == SOURCE_ROLE) != (source is not None):
        raise TokenError(f"the role {SOURCE_ROLE} and a source belong together: --role {SOURCE_ROLE} --source ID")
    try:
        source = check_id(source, "--source") if source is not None else None
    except DecodeError as error:
        raise TokenError(f"--source: {error.detail}") from None
    if _NAME.fullmatch(name) is None or name != name.strip():
        raise TokenError(f"token name {name[:80]!r}: 1 to 64 letters, digits, spaces or . _ @ -")
    if expires_days is not None and not 1 <= expires_days <= DAYS_MAX:
        raise TokenError(f"--expires-days {expires_days}: must be 1 to {DAYS_MAX}")
    token = mint(secrets.token_bytes(SECRET_BYTES))
    parameters = {
        "name": name,
        "role": role,
        "digest": digest(token),
        "expires_days": expires_days,
        "source": source,
    }
    row = connection.execute(query("token_insert"), parameters).fetchone()
    if row is None:
        raise TokenError(f"token {name!r} exists already; choose another name (a revoked name stays in the records)")
    return Minted(token, row)


def listed(connection: psycopg.Connection[DictRow]) -> list[dict[str, Any]]:
    """All tokens ever made, without their secrets."""
    return connection.execute(query("token_list")).fetchall()


def revoke(connection: psycopg.Connection[DictRow], name: str) -> dict[str, Any]:
    """Revoke a token; again is no mistake. TokenError if there is none of this name."""
    row = connection.execute(query("token_revoke"), {"name": name}).fetchone()
    if row is None:
        raise TokenError(f"there is no token {name!r}; see: citynet api token list")
    return row
