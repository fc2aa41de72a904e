"""The audit: accepted = stored + dead-lettered + lost + noted + in spool, per gateway, stream and epoch.

Two kinds of findings. A stream is unbalanced when its gateway says that more was acknowledged to it than the server has
committed (it may have trimmed what nobody has). The shelves are unbalanced when the tables do not hold what the books say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psycopg

from citynet_ingest.store import sql

Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class StreamBalance:
    """One gateway's stream and epoch. `accepted` is what the gateway claimed, or what came, if that is more."""

    gateway: str
    stream: str
    epoch: int
    accepted: int
    stored: int
    dead_lettered: int
    lost: int
    noted: int
    in_spool: int
    trimmed_early: int

    @property
    def difference(self) -> int:
        """accepted - (stored + dead-lettered + lost + noted + in spool), plus what was trimmed too early; 0 is well."""
        booked = self.stored + self.dead_lettered + self.lost + self.noted + self.in_spool
        return self.accepted - booked + self.trimmed_early


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the books say of a table, what is in it, and what retention removed from it (and booked as `retired`)."""

    name: str
    booked: int
    found: int
    retired: int = 0

    @property
    def difference(self) -> int:
        """booked - (found + retired); 0 is well."""
        return self.booked - self.found - self.retired


@dataclass(frozen=True, slots=True)
class Audit:
    streams: list[StreamBalance]
    shelves: list[Shelf]
    direct_duplicates: int

    @property
    def is_balanced(self) -> bool:
        return all(stream.difference == 0 for stream in self.streams) and all(s.difference == 0 for s in self.shelves)

    def totals(self) -> dict[str, int]:
        """Sums over all streams; `stored`, `dead_lettered` as the books have them, direct devices included."""
        shelf = {s.name: s.booked for s in self.shelves}
        return {
            "accepted": sum(s.accepted for s in self.streams),
            "stored": shelf["readings"],
            "dead_lettered": shelf["dead letters"],
            "declared_lost": shelf["losses"],
            "noted": shelf["notes"],
            "in_spool": sum(s.in_spool for s in self.streams),
            "difference": sum(abs(s.difference) for s in self.streams) + sum(abs(s.difference) for s in self.shelves),
        }

    def to_json(self) -> dict[str, object]:
        return {
            "balanced": self.is_balanced,
            "totals": self.totals(),
            "streams": [asdict(stream) | {"difference": stream.difference} for stream in self.streams],
            "shelves": [asdict(shelf) for shelf in self.shelves],
            "direct_duplicates": self.direct_duplicates,
        }


def balance(stream: Row) -> StreamBalance:
    """A row of ``audit_streams`` as a balance. Records above the cursor are still the gateway's: in its spool."""
    gateway, kind, epoch, *numbers = stream
    accepted, seq, stored, dead, lost, noted = (int(str(number)) for number in numbers[:6])
    acked = int(str(numbers[6])) if numbers[6] is not None else 0
    return StreamBalance(
        str(gateway), str(kind), int(str(epoch)), accepted, stored, dead, lost, noted,
        in_spool=accepted - max(seq, acked), trimmed_early=max(0, acked - seq),
    )  # fmt: skip


def run(connection: psycopg.Connection[tuple[object, ...]], *, count_rows: bool = True) -> Audit:
    """Audit a running system in one snapshot of the database.

    Args:
        count_rows: count the readings themselves (a full scan); without it the books are checked against each other only.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        streams = [balance(row) for row in connection.execute(sql.text("audit_streams")).fetchall()]
        row = connection.execute(sql.text("audit_books")).fetchone()
        retired = {str(tbl): int(str(records)) for tbl, records in connection.execute(sql.text("retired_totals"))}
        counted = connection.execute("SELECT count(*) FROM reading").fetchone() if count_rows else None
    stored, dead, dead_found, lost, lost_found, noted, noted_found, duplicates = (int(str(n)) for n in row or ())
    gone = retired.get("reading", 0)
    shelves = [
        Shelf("readings", stored, int(str(counted[0])) if counted else stored - gone, gone),
        Shelf("dead letters", dead, dead_found, retired.get("dead_letter", 0)),
        Shelf("losses", lost, lost_found),
        Shelf("notes", noted, noted_found, retired.get("gateway_note", 0)),
    ]
    return Audit(streams, shelves, duplicates)
