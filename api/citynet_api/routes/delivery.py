"""The books of delivery: what could not be stored, and what is declared lost. For operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from citynet_api.context import Operator, Parts
from citynet_api.database import Row
from citynet_api.models import DeadLetter, Loss, Page
from citynet_api.paging import Text, TimedQuery, by_key, by_time

router = APIRouter(prefix="/v1", tags=["delivery"])


class DeadLetterQuery(TimedQuery):
    """Which dead letters; `from` and `to` are about the first arrival."""

    reason: Text = None
    source: Text = None


class LossQuery(TimedQuery):
    """Which losses; `from` and `to` are about the time they were recorded."""

    gateway: Text = None
    reason: Text = None


@router.get("/dead-letters")
async def list_dead_letters(asked: Annotated[DeadLetterQuery, Query()], parts: Parts, _: Operator) -> Page[DeadLetter]:
    """What arrived and could not be stored, newest first."""
    rows, cursor = await by_time(parts.database, parts.settings, "dead_letter_list", asked, "at", int)
    return Page[DeadLetter](items=[dead_letter(row) for row in rows], next=cursor)


@router.get("/losses")
async def list_losses(asked: Annotated[LossQuery, Query()], parts: Parts, _: Operator) -> Page[Loss]:
    """Readings that are declared lost, newest record first."""
    rows, cursor = await by_key(parts.database, parts.settings, "loss_list", asked, "id", 2**63 - 1)
    return Page[Loss](items=[Loss(**row) for row in rows], next=cursor)


def dead_letter(row: Row) -> DeadLetter:
    """A row of ``dead_letter_list``; bytes that are not text are shown as ``\\xNN``."""
    start = bytes(row["payload_start"]).decode("utf-8", "backslashreplace")
    return DeadLetter(**{**row, "payload_start": start})
