"""Readings a second, from the books of delivery: two looks at the total, not a count over millions of rows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from psycopg import Error

from citynet_api.database import Database

WINDOW_S = 60.0
LOOK_EVERY_S = 5.0
_LOOKS_MAX = 64


class Tally:
    """The last minute of looks at the total of stored readings; bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS_MAX)

    def note(self, stored: int) -> None:
        """Remember the total as it is now. A total that fell belongs to another database: begin again."""
        if self._looks and stored < self._looks[-1][1]:
            self._looks.clear()
        now = self._clock()
        self._looks.append((now, stored))
        while len(self._looks) > 2 and self._looks[1][0] <= now - WINDOW_S:
            self._looks.popleft()

    def last_minute(self) -> tuple[int, float] | None:
        """Readings stored in the window, and readings a second over it; None before there are two looks."""
        if len(self._looks) < 2:
            return None
        (since, before), (until, after) = self._looks[0], self._looks[-1]
        per_s = (after - before) / max(until - since, 1e-3)
        return round(per_s * WINDOW_S) if until - since > WINDOW_S else after - before, per_s


async def watch(database: Database, tally: Tally) -> None:
    """Look every few seconds, for ever; while the database is away there is nothing to note."""
    while True:
        try:
            row = await database.row("tally_stored")
        except Error:
            row = None
        if row is not None:
            tally.note(int(row["stored"]))
        await asyncio.sleep(LOOK_EVERY_S)
