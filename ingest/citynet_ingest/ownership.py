"""Whose lanes are whose: locks while a worker lives, a claim for what it knows.

A worker holds an advisory lock for each of its lanes on the very connection that commits, so no two of them write to one
lane at a time. The claim is for those that come back: a worker that lost its connection, and with it the locks, may find
them free again after somebody else has worked; its claim is revoked then, and it commits nothing under it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from citynet.errors import CitynetError
from citynet_ingest.lanes import shards_of, shards_text
from citynet_ingest.store import sql
from citynet_ingest.store.fence import FencedError
from citynet_ingest.store.transaction import Connection
from citynet_ingest.watchdog import Watchdog

LANE_LOCK = 0x63697479  # first half of the advisory lock of a lane
_PATIENCE_STEP_S = 0.1
_PROBES = """
    SELECT set_config(name, value, false) FROM (VALUES
        ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
        ('client_connection_check_interval', '1s')
    ) AS probe (name, value)"""  # the server notices in half a minute that our machine is gone, and lets go of our locks
# That only our process is gone it notices at once, or within that second where a statement of ours keeps it waiting.


class ShardTakenError(CitynetError):
    """Another worker owns some of our shards."""


class StoppedError(CitynetError):
    """The worker is asked to stop while it waits for the database; nothing was acknowledged, everything comes again."""


@dataclass(frozen=True, slots=True)
class Former:
    """The last claim of some of our lanes: all `lanes` it took, those of ours that it `held` last, the state it left."""

    lanes: frozenset[int]
    held: frozenset[int]
    state: bytes | None


def lock(
    connection: Connection, lanes: Sequence[int], patience_s: float, stopping: threading.Event, watchdog: Watchdog
) -> None:
    """Take the locks of lanes. The server may still believe in the connection that held them last, a predecessor's or our
    own, until its probes have failed; so a taken lane is worth some patience before it is an error.

    Raises:
        ShardTakenError: still taken after `patience_s`; says by whom. StoppedError: `stopping` was set meanwhile.
    """
    connection.execute(_PROBES)
    deadline = time.monotonic() + patience_s
    for lane in lanes:
        while True:
            is_last = time.monotonic() > deadline  # before the try: who is held up after it has another one
            row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LANE_LOCK, lane)).fetchone()
            if row and row[0]:
                break
            if is_last:
                shards = shards_text(shards_of(lane))
                raise ShardTakenError(
                    f"shards {shards} are owned by another ingest worker: {_holder(connection, lane)}"
                )
            if stopping.wait(_PATIENCE_STEP_S):
                raise StoppedError("stopped while another connection owns our shards")
            watchdog.heard()


def _holder(connection: Connection, lane: int) -> str:
    row = connection.execute(sql.text("lane_holder"), {"space": LANE_LOCK, "lane": lane}).fetchone()
    if row is None:
        return "it has let go of them just now"
    name, pid, address, since = row
    return f"{name or 'a session without a name'}, connected from {address} since {since} (server process {pid})"


def formers(connection: Connection, lanes: Sequence[int]) -> list[Former]:
    """The last claims of these lanes, the newest first."""
    rows = connection.execute(sql.text("claim_find"), {"lanes": list(lanes)}).fetchall()
    return [
        Former(_lanes(took), _lanes(held), None if state is None else as_bytes(state)) for took, held, state in rows
    ]


def claim(connection: Connection, lanes: Sequence[int], owner: str) -> int:
    """Take lanes under a claim of our own, in the transaction under way; their former claims are revoked. Returns its id."""
    row = connection.execute(sql.text("claim_add"), {"owner": owner, "lanes": list(lanes)}).fetchone()
    ident = int(str(row[0])) if row else 0
    connection.execute(sql.text("claim_revoke"), {"lanes": list(lanes)})
    connection.execute(sql.text("lane_take"), {"lanes": list(lanes), "claim": ident})
    connection.execute(sql.text("claim_retire"))
    return ident


def last_commit(connection: Connection, ident: int) -> int:
    """Number of the last commit under a claim. FencedError if it was revoked."""
    row = connection.execute(sql.text("commit_find"), {"claim": ident}).fetchone()
    if row is None or row[1]:
        raise FencedError("another ingest worker has taken our shards since; stopping")
    return int(str(row[0]))


def _lanes(column: object) -> frozenset[int]:
    assert isinstance(column, list)  # noqa: S101
    return frozenset(int(lane) for lane in column)


def as_bytes(value: object) -> bytes:
    """A bytea column."""
    assert isinstance(value, bytes | memoryview)  # noqa: S101
    return bytes(value)
