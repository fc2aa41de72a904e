"""Legal holds: spans of time that retention must not touch. A hold is released, never removed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from citynet.errors import CitynetError
from citynet_ingest.store import sql
from citynet_ingest.store.parts import Connection


@dataclass(frozen=True, slots=True)
class Hold:
    """Of times in [from_at, to_at). `*_by` is who it was said to be, `*_role` the database's role."""

    id: int
    from_at: dt.datetime
    to_at: dt.datetime
    reason: str
    placed_at: dt.datetime
    placed_by: str
    placed_role: str
    released_at: dt.datetime | None
    released_by: str | None
    released_role: str | None
    release_reason: str | None

    @property
    def is_active(self) -> bool:
        return self.released_at is None

    def touches(self, from_at: dt.datetime, to_at: dt.datetime) -> bool:
        """Whether it keeps something that lies in [from_at, to_at)."""
        return self.is_active and self.from_at < to_at and from_at < self.to_at

    def to_json(self) -> dict[str, object]:
        values = asdict(self) | {"active": self.is_active}
        return {key: value.isoformat() if isinstance(value, dt.datetime) else value for key, value in values.items()}


def all_holds(connection: Connection) -> list[Hold]:
    """Every hold, released ones too, by number."""
    return [Hold(*row) for row in connection.execute(sql.text("hold_list")).fetchall()]


def keeping(holds: Iterable[Hold], from_at: dt.datetime, to_at: dt.datetime) -> list[Hold]:
    """Those that keep a chunk or partition of this span: one instant of it is enough."""
    return [hold for hold in holds if hold.touches(from_at, to_at)]


def why_held(holds: Sequence[Hold]) -> str:
    """Holds in words."""
    return "; ".join(f"hold {hold.id}: {hold.reason}" for hold in holds)


def place(connection: Connection, from_at: dt.datetime, to_at: dt.datetime, *, reason: str, actor: str) -> Hold:
    """Hold a span. From the commit on no drop can begin; one that is under way is waited for."""
    values = {"from_at": from_at, "to_at": to_at, "reason": reason, "actor": actor}
    row = connection.execute(sql.text("hold_add"), values).fetchone()
    assert row is not None  # noqa: S101  (an INSERT … RETURNING gives its row)
    return Hold(*row)


def release(connection: Connection, number: int, *, reason: str, actor: str) -> Hold:
    """End a hold; its row stays. CitynetError if there is none of this number, or it is released already."""
    row = connection.execute(sql.text("hold_release"), {"id": number, "reason": reason, "actor": actor}).fetchone()
    if row is not None:
        return Hold(*row)
    found = next((hold for hold in all_holds(connection) if hold.id == number), None)
    if found is None:
        raise CitynetError(f"hold {number}: there is none of this number")
    raise CitynetError(f"hold {number}: was released at {found.released_at} by {found.released_by}")


def already_gone(connection: Connection, hold: Hold) -> list[tuple[str, str, dt.datetime, dt.datetime]]:
    """What retention had removed of the span before it was held: (table, part, from, to)."""
    return connection.execute(sql.text("retired_in_hold"), {"from_at": hold.from_at, "to_at": hold.to_at}).fetchall()
