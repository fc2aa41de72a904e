"""What the commands that list the books share: spans of time, pages, rows as JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Annotated

import typer

FIRST_PAGE = (1 << 63) - 1
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since(text: str | None) -> dt.datetime | None:
    """A moment: ISO 8601 (UTC unless it says otherwise), or how long ago, such as ``90m``, ``24h``, ``7d``."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago:
        return dt.datetime.now(dt.UTC) - dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a time such as 2026-05-01T08:00 nor an age such as 24h"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


GatewayOption = Annotated[str | None, typer.Option("--gateway", help="Of this gateway only.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="With this reason only.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Not older: a time (ISO 8601) or an age (90m, 24h, 7d).")
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Rows of a page.")]
AfterOption = Annotated[
    int, typer.Option("--after", min=1, help="Go on after this id (the last one of the page before).")
]


def page_json(rows: list[dict[str, object]], limit: int) -> str:
    """``{"items": […], "next": id}``; `next` is null on the last page."""
    return json.dumps({"items": rows, "next": rows[-1]["id"] if len(rows) == limit else None}, default=plain)


def plain(value: object) -> str:
    """What JSON does not know: times as ISO 8601."""
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
