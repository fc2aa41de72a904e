"""Dead letters that are tried again, in the database: who was asked for, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg.rows import class_row

from citynet.ids import SHARDS
from citynet.runtime.failpoint import hit
from citynet_ingest.commit import Redriven
from citynet_ingest.letter import Letter
from citynet_ingest.store import sql
from citynet_ingest.store.fence import FencedError

LETTERS_MAX = 500  # of one commit
BYTES_MAX = 8 << 20
Connection = psycopg.Connection[tuple[object, ...]]


def asked(connection: Connection, shards: Iterable[int]) -> list[Letter]:
    """The next letters to try again: at most `LETTERS_MAX`, and (after the first) `BYTES_MAX` of payload."""
    wanted = {"shards": list(shards), "letters": LETTERS_MAX, "bytes": BYTES_MAX}
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(sql.text("redrive_asked"), wanted).fetchall()


def book(connection: Connection, redriven: Sequence[Redriven], worker: str) -> None:
    """Inside the transaction that stores what the letters gave: mark them, drop their requests, correct the tally.

    Raises:
        FencedError: a letter was redriven by somebody else in the meantime.
    """
    done = [letter for letter in redriven if letter.failure is None]
    failed = [letter for letter in redriven if letter.failure is not None]
    if done:
        columns = {
            "letters": [letter.letter for letter in done],
            "by": [letter.by for letter in done],
            "stored": [letter.stored for letter in done],
        }
        rows = connection.execute(sql.text("redrive_done"), columns).fetchall()
        if len(rows) != len(done):
            raise FencedError("a dead letter was redriven by another process; stopping")
        free = [(int(str(records)), int(str(times))) for unnumbered, records, times in rows if unnumbered]
        dead, repeats = sum(records for records, _ in free), sum(times - 1 for _, times in free)
        tally = {"worker": worker, "stored": 0, "dead_lettered": -dead, "duplicates": repeats}
        connection.execute(sql.text("tally_add"), tally)
    if failed:
        failures = {"letters": [f.letter for f in failed], "failures": [f.failure for f in failed]}
        connection.execute(sql.text("redrive_failed"), failures)
    taken = {"letters": [letter.letter for letter in redriven], "shards": list(range(SHARDS))}
    connection.execute(sql.text("redrive_taken"), taken)
    hit("ingest.mid-redrive")
