"""Keyset pages: one row more than the page is fetched, and its being there makes the cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from citynet_api import cursors
from citynet_api.database import Database, Row
from citynet_api.problems import wrong
from citynet_api.settings import ApiSettings

# Behind every time there is: where the first page of a newest-first list begins.
LAST_TIME = "infinity"
# PostgreSQL has no text with a NUL in it.
_NO_NUL = r"^[^\x00]*$"
Text = Annotated[str | None, Field(max_length=128, pattern=_NO_NUL)]
PathName = Annotated[str, Path(max_length=128, pattern=_NO_NUL)]


class ListQuery(BaseModel):
    """Parameters of every list. A parameter that the list does not know is refused: a misspelt filter filters nothing."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    limit: int | None = Field(None, ge=1, description="rows of the page")
    cursor: str | None = Field(None, max_length=1024, description="`next` of the page before")

    def filters(self) -> dict[str, Any]:
        """The parameters that choose rows, by the names that the query gives them."""
        return self.model_dump(by_alias=True, exclude={"limit", "cursor"})


class TimedQuery(ListQuery):
    """A list that can be cut by time."""

    from_: AwareDatetime | None = Field(None, alias="from", description="from here on, ISO 8601 with offset or Z")
    to: AwareDatetime | None = Field(None, description="before this time")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.from_ is not None and self.to is not None and self.from_ >= self.to:
            raise ValueError("`from` is not before `to`")
        return self


def page_size(asked: int | None, settings: ApiSettings) -> int:
    """Rows of a page. Problem 422 if more are asked for than a page may have."""
    if asked is not None and asked > settings.page_size_max:
        raise wrong("limit", f"is above {settings.page_size_max}, the largest page (got {asked})")
    return asked or min(settings.page_size_default, settings.page_size_max)


def cut(rows: Sequence[Row], size: int, cursor_of: Callable[[Row], str]) -> tuple[Sequence[Row], str | None]:
    """The page out of at most ``size + 1`` rows, and the cursor behind it if there are more."""
    page = rows[:size]
    return page, cursor_of(page[-1]) if len(rows) > size else None


def start_timed(given: str | None, listing: str, filters: Mapping[str, Any], id_kind: type) -> tuple[str, Any]:
    """Where a newest-first list sorted by (time, id) goes on: behind the cursor, or at the very front."""
    if given is None:
        return LAST_TIME, "" if id_kind is str else 2**63 - 1
    at, row_id = cursors.decode(given, listing, filters, (str, id_kind))
    check_time(at)
    return at, row_id


def check_time(text: str) -> None:
    """Problem 422 if a cursor's time was tampered with."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise wrong("cursor", "is not a cursor of this list") from None


def iso(at: datetime) -> str:
    """UTC in ISO 8601 with microseconds: the exact value, for cursors."""
    return at.astimezone(UTC).isoformat()


async def by_key(
    database: Database, settings: ApiSettings, listing: str, asked: ListQuery, key: str, first: str | int
) -> tuple[Sequence[Row], str | None]:
    """A page of the query `listing`, sorted by its column `key`; `first` lies before every key in the list's order."""
    filters = asked.filters()
    size = page_size(asked.limit, settings)
    after = first if asked.cursor is None else cursors.decode(asked.cursor, listing, filters, (type(first),))[0]
    rows = await database.rows(listing, {**filters, "after": after, "id": after, "limit": size + 1})
    return cut(rows, size, lambda row: cursors.encode(listing, filters, [row[key]]))


async def by_time(
    database: Database, settings: ApiSettings, listing: str, asked: ListQuery, column: str, id_kind: type
) -> tuple[Sequence[Row], str | None]:
    """A page of the query `listing`, newest first by its time `column`, then by id."""
    filters = asked.filters()
    size = page_size(asked.limit, settings)
    at, row_id = start_timed(asked.cursor, listing, filters, id_kind)
    rows = await database.rows(listing, {**filters, column: at, "id": row_id, "limit": size + 1})
    return cut(rows, size, lambda row: cursors.encode(listing, filters, [iso(row[column]), row["id"]]))
