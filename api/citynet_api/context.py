"""What the handlers of one process share, and how a request reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from citynet_api.auth import Authenticator, Principal, Role, require
from citynet_api.database import Database
from citynet_api.feed import Feed
from citynet_api.settings import ApiSettings
from citynet_api.tally import Tally


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a running api."""

    settings: ApiSettings
    database: Database
    authenticator: Authenticator
    feed: Feed
    tally: Tally


def context(request: Request) -> Context:
    """The parts, for a handler."""
    return cast("Context", request.app.state.context)


Parts = Annotated[Context, Depends(context)]

# Only documents the scheme in OpenAPI; the header is read and judged by `citynet_api.auth`.
_scheme = HTTPBearer(auto_error=False, bearerFormat="cn_<base64url>", description="`citynet api token create NAME`")


async def _principal(request: Request, parts: Parts, _: Annotated[object, Security(_scheme)]) -> Principal:
    return await parts.authenticator.verify(request.headers.get("authorization"))


async def _viewer(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    return require(principal, Role.viewer)


async def _operator(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    return require(principal, Role.operator)


async def _admin(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    return require(principal, Role.admin)


Viewer = Annotated[Principal, Depends(_viewer)]
Operator = Annotated[Principal, Depends(_operator)]
Admin = Annotated[Principal, Depends(_admin)]
