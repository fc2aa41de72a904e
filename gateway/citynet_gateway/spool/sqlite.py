"""The spool on SQLite: the same port, other machinery. An option, and the oracle that the segment files are compared with.

A frame is a row; what is synced together is one transaction, in WAL mode with `synchronous = FULL`. It writes several times the
bytes of the segment files, and a loss record needs free space: on a full disk nothing gives way.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from citynet.control import Claim, Stream
from citynet.notes import LossNote, Note
from citynet.reading import Reading
from citynet.runtime import failpoint
from citynet.wire import ALARM, STREAMS, TELEMETRY
from citynet_gateway.spool.files import Files, LocalFiles, close_quietly
from citynet_gateway.spool.ledger import Drop, Epoch, Tokens
from citynet_gateway.spool.port import Frame, Run, Span, SpoolFull, SpoolSettings
from citynet_gateway.spool.reader import (
    SEGMENT_DAMAGED,
    SERVER_REGRESSION,
    SPOOL_AGE,
    SPOOL_FULL,
    SPOOL_REGRESSION,
    RunBuilder,
)
from citynet_gateway.spool.segment import SegmentName, encode_frame, scan, seed_of
from citynet_gateway.spool.store import CLAIMS_MAX, check_epoch, take_lock

DATABASE = "spool.sqlite"
ROW_BYTES = 64  # what a row takes beside its body, about
TRIM_RECORDS = 4_096  # acknowledged records that are removed at a time
_CACHE_KIB = 512
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS epoch (stream TEXT, number INTEGER, opening INTEGER, acked INTEGER, synced INTEGER, bytes INTEGER,
    PRIMARY KEY (stream, number));
CREATE TABLE IF NOT EXISTS frame (stream TEXT, epoch INTEGER, seq0 INTEGER, last INTEGER, taken_s INTEGER, body BLOB,
    PRIMARY KEY (stream, epoch, seq0));
CREATE TABLE IF NOT EXISTS token (number INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT, token BLOB);
CREATE TABLE IF NOT EXISTS given_up (stream TEXT, epoch INTEGER, first INTEGER, last INTEGER, reason TEXT,
    PRIMARY KEY (stream, epoch, first));
"""


class SqliteView:
    """A look at a spool's database beside the gateway that works on it: `inspect.View`."""

    def __init__(self, folder: Path) -> None:
        with as_os_errors():
            self._db = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)

    def epochs(self) -> list[Epoch]:
        with as_os_errors():
            return [epoch for epochs in load_epochs(self._db).values() for epoch in epochs]

    def read(self, epoch: Epoch, seq: int, records_max: int, bytes_max: int) -> Run | None:
        with as_os_errors():
            return read_run(self._db, epoch, seq, records_max, bytes_max)[0]

    def acked_now(self, epoch: Epoch) -> int:
        found = [item.acked for item in self.epochs() if (item.number, item.stream) == (epoch.number, epoch.stream)]
        return found[0] if found else epoch.last

    def size(self, epoch: Epoch) -> tuple[int, int]:
        key = (epoch.stream, epoch.number)
        with as_os_errors():
            row = self._db.execute("SELECT bytes FROM epoch WHERE (stream, number) = (?, ?)", key).fetchone()
        return 1, row[0] if row else 0


@contextmanager
def as_os_errors() -> Iterator[None]:
    """The port knows OSError only. A full disk is ENOSPC, everything else EIO."""
    try:
        yield
    except sqlite3.Error as error:
        code = errno.ENOSPC if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(code, f"spool database: {error}") from None


class _State:
    """One stream: its epochs, tokens, and what is appended and not yet synced."""

    def __init__(self, epochs: list[Epoch], tokens: Tokens, stored_bytes: int) -> None:
        self.epochs = epochs
        self.tokens = tokens
        self.stored_bytes = stored_bytes
        self.pending: list[tuple[Frame, bytes]] = []
        self.pending_bytes = 0

    @property
    def live(self) -> Epoch:
        return self.epochs[-1]

    @property
    def appended(self) -> int:
        return self.pending[-1][0].last if self.pending else self.live.synced

    @property
    def used_bytes(self) -> int:
        return self.stored_bytes + self.pending_bytes


class SqliteSpool:
    """`Spool` in one SQLite database. Arguments and errors are those of `SegmentSpool`.

    A database that cannot be opened is moved aside: the spool always starts.
    """

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        epoch: int,
        files: Files | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        files = files or LocalFiles()
        self._settings = settings
        self._epoch = epoch
        self._monotonic_s = monotonic_s
        self._given_up: Counter[str] = Counter()
        self._untrimmed = 0
        self.lost_records = 0
        files.prepare(folder)
        with ExitStack() as undo, as_os_errors():
            self._lock = take_lock(files, folder)
            undo.callback(close_quietly, self._lock)
            self._db = _open(folder / DATABASE)
            undo.callback(self._db.close)
            known = load_epochs(self._db)
            check_epoch(epoch, [old.number for epochs in known.values() for old in epochs])
            self._begin(known)
            undo.pop_all()

    def _begin(self, known: Mapping[Stream, list[Epoch]]) -> None:
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        opening = meta.get("opening", 0) + 1
        self._clock_from_s = max(1, meta.get("clock_s", 0)) - self._monotonic_s()
        self._streams: dict[Stream, _State] = {}
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('opening', ?)", (opening,))
            for stream in STREAMS:
                rows = self._db.execute("SELECT token FROM token WHERE stream = ? ORDER BY number", (stream,))
                tokens = Tokens(self._settings.tokens_max, (token for (token,) in rows))
                (stored,) = self._db.execute("SELECT total(bytes) FROM epoch WHERE stream = ?", (stream,)).fetchone()
                live = Epoch(stream, opening, self._epoch, live=True)
                self._streams[stream] = _State([*known[stream], live], tokens, int(stored))

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def used_bytes(self) -> int:
        return sum(state.used_bytes for state in self._streams.values())

    @property
    def given_up(self) -> Mapping[str, int]:
        return self._given_up

    def _clock_s(self) -> int:
        return int(self._clock_from_s + self._monotonic_s())

    # --- taking ---

    def append(
        self,
        stream: Stream,
        readings: Sequence[Reading],
        notes: Sequence[Note],
        token: bytes = b"",
        *,
        waits: bool = True,
    ) -> int:
        state = self._streams[stream]
        frame = Frame(state.appended + 1, state.live.synced, token, tuple(readings), tuple(notes))
        if not frame.count:
            raise ValueError("a frame holds at least one record")
        data = encode_frame(frame, seed_of(_name(state.live)))
        size = len(data) + ROW_BYTES
        if state.pending_bytes + size > self._settings.pending_bytes_max:
            raise SpoolFull(stream, state.pending_bytes, self._settings.pending_bytes_max)
        while not self._fits(state, stream, size, waits=waits):
            if waits or not self.give_way():
                raise SpoolFull(stream, state.used_bytes, self._settings.cap(stream))
        state.pending.append((frame, data))
        state.pending_bytes += size
        state.tokens.add(token)
        return frame.last

    def _fits(self, state: _State, stream: Stream, size: int, *, waits: bool) -> bool:
        own = state.used_bytes + size <= self._settings.room(stream, waits=waits)
        return own and self.used_bytes + size <= self._settings.bytes_max

    def appended(self, stream: Stream) -> int:
        return self._streams[stream].appended

    def synced(self, stream: Stream) -> int:
        return self._streams[stream].live.synced

    def pending(self, stream: Stream) -> int:
        return sum(frame.count for frame, _ in self._streams[stream].pending)

    def pending_bytes(self, stream: Stream) -> int:
        return self._streams[stream].pending_bytes

    def knows(self, stream: Stream, token: bytes) -> bool:
        return token in self._streams[stream].tokens

    def sync(self, stream: Stream) -> int:
        state = self._streams[stream]
        if not state.pending:
            return state.live.synced
        failpoint.hit("gateway.before-write")
        last, taken_s = state.appended, self._clock_s()
        rows = [(stream, self._epoch, frame.seq0, frame.last, taken_s, data) for frame, data in state.pending]
        tokens = [(stream, frame.token) for frame, _ in state.pending if frame.token]
        with as_os_errors(), self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO epoch VALUES (?, ?, ?, 0, 0, 0)", (stream, self._epoch, state.live.opening)
            )
            self._db.executemany("INSERT INTO frame VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("INSERT INTO token (stream, token) VALUES (?, ?)", tokens)
            self._db.execute(
                "UPDATE epoch SET synced = ?, bytes = bytes + ? WHERE (stream, number) = (?, ?)",
                (last, state.pending_bytes, stream, self._epoch),
            )
        state.live.synced = last
        state.stored_bytes += state.pending_bytes
        state.pending, state.pending_bytes = [], 0
        state.tokens.synced()
        failpoint.hit("gateway.after-sync")
        return last

    # --- giving ---

    def spans(self, stream: Stream) -> list[Span]:
        return [epoch.span() for epoch in self._streams[stream].epochs]

    def read(self, stream: Stream, epoch: int, seq: int, records_max: int, bytes_max: int) -> Run | None:
        found = self._find(stream, epoch)
        if found is None:
            return None
        with as_os_errors():
            run, lost = read_run(self._db, found, seq, records_max, bytes_max)
        self.lost_records += lost
        return run

    def _find(self, stream: Stream, number: int) -> Epoch | None:
        return next((epoch for epoch in self._streams[stream].epochs if epoch.number == number), None)

    def ack(self, stream: Stream, epoch: int, seq: int) -> None:
        found = self._find(stream, epoch)
        if found is None or seq > found.last:
            raise ValueError(f"{stream} {epoch}: {seq} was never accepted")
        self._untrimmed += max(0, seq - found.acked)
        found.acked = max(found.acked, seq)
        if self._untrimmed >= TRIM_RECORDS:
            self.save()

    def claims(self) -> list[Claim]:
        return [
            Claim(epoch.number, epoch.stream, epoch.last, epoch.acked)
            for state in self._streams.values()
            for epoch in state.epochs[-CLAIMS_MAX:]
            if epoch.live or epoch.last > 0
        ]

    def save(self) -> None:
        """Write the acknowledgements and remove what they cover, in one transaction."""
        freed: Counter[Stream] = Counter()
        gone: list[Epoch] = []
        with as_os_errors(), self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('clock_s', ?)", (self._clock_s(),))
            for state in self._streams.values():
                for epoch in state.epochs:
                    freed[epoch.stream] += self._remove(epoch, epoch.acked)
                finished = [epoch for epoch in state.epochs if epoch.finished]
                gone += finished[: max(0, len(finished) - self._settings.finished_epochs_max)]
            for epoch in gone:
                for table, key in (("epoch", "number"), ("given_up", "epoch")):
                    self._db.execute(
                        f"DELETE FROM {table} WHERE (stream, {key}) = (?, ?)", (epoch.stream, epoch.number)
                    )
            for stream in STREAMS:
                self._db.execute(
                    "DELETE FROM token WHERE stream = ? AND number <= (SELECT number FROM token WHERE stream = ?"
                    " ORDER BY number DESC LIMIT 1 OFFSET ?)",
                    (stream, stream, self._settings.tokens_max),
                )
        for stream, size in freed.items():
            self._streams[stream].stored_bytes -= size
        for epoch in gone:
            self._streams[epoch.stream].epochs.remove(epoch)
        self._untrimmed = 0

    def _remove(self, epoch: Epoch, last: int) -> int:
        """Inside a transaction: forget the frames up to `last`; the bytes freed."""
        key = (epoch.stream, epoch.number)
        (size,) = self._db.execute(
            "SELECT total(length(body) + ?) FROM frame WHERE stream = ? AND epoch = ? AND last <= ?",
            (ROW_BYTES, *key, last),
        ).fetchone()
        self._db.execute("DELETE FROM frame WHERE stream = ? AND epoch = ? AND last <= ?", (*key, last))
        self._db.execute(
            "UPDATE epoch SET acked = ?, bytes = bytes - ? WHERE (stream, number) = (?, ?)",
            (epoch.acked, int(size), *key),
        )
        return int(size)

    # --- giving up ---

    def give_way(self) -> bool:
        """As many of the oldest frames as a segment has; the newest such portion stays."""
        state = self._streams[TELEMETRY]
        try:
            with as_os_errors():
                return (
                    self._give_up(SPOOL_FULL, "", ())
                    if state.stored_bytes > 2 * self._settings.segment_bytes
                    else False
                )
        except OSError:
            return False

    def expire(self) -> None:
        if self._settings.age_max_s:
            with as_os_errors():
                while self._give_up(SPOOL_AGE, "AND taken_s <= ?", (self._clock_s() - self._settings.age_max_s,)):
                    pass

    def _give_up(self, reason: str, condition: str, values: tuple[int, ...]) -> bool:
        for epoch in self._streams[TELEMETRY].epochs:
            last, size = 0, 0
            rows = self._db.execute(
                f"SELECT last, length(body) FROM frame WHERE stream = ? AND epoch = ? AND last > ? {condition} ORDER BY seq0",
                (TELEMETRY, epoch.number, epoch.released, *values),
            )
            for row_last, body_bytes in rows:
                last, size = row_last, size + body_bytes + ROW_BYTES
                if size >= self._settings.segment_bytes:
                    break
            if last:
                self._book_loss(epoch, last, reason)
                return True
        return False

    def _book_loss(self, epoch: Epoch, last: int, reason: str) -> None:
        first = epoch.released + 1
        with self._db:
            self._db.execute(
                "INSERT INTO given_up VALUES (?, ?, ?, ?, ?)", (epoch.stream, epoch.number, first, last, reason)
            )
            freed = self._remove(epoch, last)
        epoch.drop(first, last, reason)
        self._streams[TELEMETRY].stored_bytes -= freed
        self._given_up[reason] += last - first + 1

    def close(self) -> None:
        self._db.close()
        close_quietly(self._lock)


def _name(epoch: Epoch) -> SegmentName:
    return SegmentName(epoch.stream, epoch.opening, epoch.number, 1, 0)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        for suffix in ("", "-wal", "-shm"):
            damaged = path.with_name(path.name + suffix)
            if damaged.exists():
                damaged.rename(path.with_name(f"damaged-{path.name}{suffix}"))
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    try:
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.executescript(_SCHEMA)
        db.execute("SELECT count(*) FROM epoch").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db


def load_epochs(db: sqlite3.Connection) -> dict[Stream, list[Epoch]]:
    """The epochs of a database by stream, oldest first."""
    found: dict[Stream, list[Epoch]] = {stream: [] for stream in STREAMS}
    for text, number, opening, acked, synced, _ in db.execute("SELECT * FROM epoch ORDER BY opening"):
        stream: Stream = ALARM if text == ALARM else TELEMETRY
        epoch = Epoch(stream, opening, number, live=False, acked=acked, synced=synced)
        rows = db.execute(
            "SELECT first, last, reason FROM given_up WHERE (stream, epoch) = (?, ?) ORDER BY first", (stream, number)
        )
        for row in rows:
            epoch.drop(*row)
        epoch.drops = [
            Drop(max(drop.first, acked + 1), drop.last, drop.reason) for drop in epoch.drops if drop.last > acked
        ]
        found[stream].append(epoch)
    return found


def read_run(
    db: sqlite3.Connection, epoch: Epoch, seq: int, records_max: int, bytes_max: int
) -> tuple[Run | None, int]:
    """The run from `seq` on, as `Spool.read` gives it, and how many records were found damaged."""
    run, lost = RunBuilder(epoch.number, seq, records_max, bytes_max), 0
    seed = seed_of(_name(epoch))
    rows = db.execute(
        "SELECT seq0, last, body FROM frame WHERE stream = ?1 AND epoch = ?2 AND seq0 >= coalesce((SELECT max(seq0) FROM frame"
        " WHERE stream = ?1 AND epoch = ?2 AND seq0 <= ?3), 0) AND last >= ?3 ORDER BY seq0",
        (epoch.stream, epoch.number, seq),
    )
    row = rows.fetchone()
    while not run.full and run.next_seq <= epoch.last:
        at = run.next_seq
        drop = epoch.dropped_at(at)
        if drop is not None:
            run.take(LossNote(at, drop.last, drop.reason))
        elif row is None or row[0] > at:
            end = epoch.last if row is None else row[0] - 1
            end = min([end, *(item.first - 1 for item in epoch.drops if item.first > at)])
            known = at <= epoch.acked
            run.take(
                LossNote(at, min(end, epoch.acked) if known else end, SERVER_REGRESSION if known else SPOOL_REGRESSION)
            )
        elif row[1] < at:
            row = rows.fetchone()
        elif (raw := next(scan(row[2], 0, seed), None)) is None:
            lost += row[1] - at + 1
            run.take(LossNote(at, row[1], SEGMENT_DAMAGED))
        elif not run.take(raw.frame()):
            break
    rows.close()
    return run.build(), lost
