"""Every error becomes problem details: ours, the framework's, the validator's, the database's, and the unforeseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import InterfaceError, OperationalError, errors
from starlette.exceptions import HTTPException

from citynet_api.headers import SECURITY_HEADERS
from citynet_api.problems import MEDIA_TYPE, Fault, Problem

RETRY_S = "2"
_FAULTS_MAX = 50
_BY_STATUS = {
    400: "bad-request",
    401: "unauthenticated",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
}


def respond(request: Request, problem: Problem) -> JSONResponse:
    """The answer that carries a problem."""
    return JSONResponse(
        problem.body(request.url.path), problem.code, headers=dict(problem.headers), media_type=MEDIA_TYPE
    )


def faults(found: Sequence[Any]) -> list[Fault]:
    """What the validator found, one entry a mistake, at most fifty."""
    named = []
    for item in found[:_FAULTS_MAX]:
        location, *path = item["loc"] or ("body",)
        value = item.get("input")
        shown = f" (got {str(value)[:60]!r})" if isinstance(value, str | int | float) and path else ""
        detail = "is not known here" if item["type"] == "extra_forbidden" else item["msg"] + shown
        named.append(Fault(parameter=dotted(path) or str(location), location=str(location), detail=detail))
    return named


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: ``["series", 0, "metric"]`` is ``series[0].metric``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def invalid(error: RequestValidationError) -> Problem:
    """The problem of a request that the validator refused."""
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        where = next(item for item in found if item["type"] == "json_invalid")
        detail = f"not JSON at character {where['loc'][-1]}: {where.get('ctx', {}).get('error', where['msg'])}"
        return Problem("unreadable-body", detail, [Fault(parameter="body", location="body", detail=detail)])
    named = faults(found)
    return Problem("invalid-request", "; ".join(f"{fault.parameter}: {fault.detail}" for fault in named)[:1000], named)


def from_http(error: HTTPException) -> Problem:
    """The problem of an error that the framework raised."""
    kind = _BY_STATUS.get(error.status_code, "http-error")
    detail = {"not-found": "There is nothing at this path.", "method-not-allowed": "See the Allow header."}.get(kind)
    return Problem(kind, detail or str(error.detail), headers=error.headers or {}, status=error.status_code)


def from_database(error: Exception) -> Problem:
    """The problem of a failed query. Neither host names nor SQL leave the house."""
    retry = {"Retry-After": RETRY_S}
    if isinstance(error, errors.QueryCanceled | errors.LockNotAvailable):
        return Problem("query-timeout", "Ask for less: a shorter time range, or coarser buckets.", headers=retry)
    if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn | errors.UndefinedFunction):
        return Problem("schema-unknown", "Run: citynet db migrate", headers=retry)
    return Problem("database-away", "Nothing is lost; try again shortly.", headers=retry)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    return respond(request, cast("Problem", error))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    return respond(request, invalid(cast("RequestValidationError", error)))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    return respond(request, from_http(cast("HTTPException", error)))


async def _on_database(request: Request, error: Exception) -> JSONResponse:
    return respond(request, from_database(error))


async def _on_surprise(request: Request, error: Exception) -> JSONResponse:
    """A mistake of ours. The framework logs the traceback; the answer tells a stranger nothing of it."""
    headers = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
    return respond(request, Problem("internal", "The details are in the server's log.", headers=headers))


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    for kind in (
        OperationalError,
        InterfaceError,
        errors.UndefinedTable,
        errors.UndefinedColumn,
        errors.UndefinedFunction,
        errors.ReadOnlySqlTransaction,
    ):
        app.add_exception_handler(kind, _on_database)
    app.add_exception_handler(Exception, _on_surprise)
