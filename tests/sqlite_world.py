"""The spool's world with the SQLite spool in it: the same model of what was promised, faults as far as SQLite's files allow.

A full disk is the database's own bound of pages, which gives SQLite's error for a full disk. An I/O error is the limit of
file sizes (RLIMIT_FSIZE): a write is cut short there and the next one fails. A kill is a copy of the files as they are, in the
middle of a statement where it is planned so, which the next opening gets; what the page cache has, a kill does not take. Power
cuts need a file system of our own under SQLite, and are left to the segment files.
"""

from __future__ import annotations

import errno
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from citynet_gateway.spool import Spool
from citynet_gateway.spool.sqlite import DATABASE, SqliteSpool
from tests.spool_world import SETTINGS, SpoolWorld

_PAGES_UNBOUNDED = 0x3FFFFFFF
_MEMORY = Path("/dev/shm")  # noqa: S108  (thousands of syncs: not on a disk)


class SqliteWorld(SpoolWorld):
    """`close` removes what it wrote. Counts `deaths` in the middle of a statement and `faults` that were met."""

    def __init__(self, seed: int) -> None:
        self._parent = Path(tempfile.mkdtemp(prefix="citynet-test-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._folder = self._parent / "0"
        self._lives = 0
        self._fault: int | None = None
        self._dies_in: int | None = None
        self._snapshot: Path | None = None
        self.deaths = self.faults = 0
        super().__init__(seed)

    def _open(self) -> Spool:
        return SqliteSpool(self._folder, SETTINGS, self.epoch)

    def close(self) -> None:
        self.spool.close()
        shutil.rmtree(self._parent)

    # --- faults

    def plan_failure(self, operation: str, after: int, code: int) -> None:
        self._fault = code

    def plan_short_write(self, room: int) -> None:
        self._fault = errno.EIO

    def plan_death(self, calls: int) -> None:
        self._dies_in = calls

    def restart(self, how: str) -> None:
        self._fault = self._dies_in = None
        folder = self._snapshot or (self._folder if how == "stop" else self._copied())
        self._snapshot = None
        self.spool.close()
        self._folder = folder
        self._reopen()

    def _survives(self, action: Callable[[], object]) -> bool:
        with self._failing(), self._dying():
            try:
                action()
                succeeded = True
            except OSError:
                succeeded = False
                self.faults += 1
        if self._snapshot is not None:
            self.deaths += 1
            self.restart("kill")
            return False
        return succeeded

    @property
    def _db(self) -> sqlite3.Connection:
        assert isinstance(self.spool, SqliteSpool)
        return self.spool._db

    @contextmanager
    def _failing(self) -> Iterator[None]:
        fault, self._fault = self._fault, None
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if fault == errno.ENOSPC:
            (pages,) = self._db.execute("PRAGMA page_count").fetchone()
            self._db.execute(f"PRAGMA max_page_count = {pages}")
        elif fault == errno.EIO:
            wal = self._folder / f"{DATABASE}-wal"
            size = wal.stat().st_size if wal.exists() else 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.random.randint(0, size + 8_192), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            if fault == errno.ENOSPC:
                self._db.execute(f"PRAGMA max_page_count = {_PAGES_UNBOUNDED}")

    @contextmanager
    def _dying(self) -> Iterator[None]:
        """At the planned step of SQLite's machine the files are as the kill leaves them."""
        left, self._dies_in = self._dies_in, None
        if left is None:
            yield
            return

        def step() -> int:
            nonlocal left
            assert left is not None
            left -= 1
            if left < 0 and self._snapshot is None:
                self._snapshot = self._copied()
            return 0

        self._db.set_progress_handler(step, 7)
        try:
            yield
        finally:
            self._db.set_progress_handler(None, 7)

    def _copied(self) -> Path:
        self._lives += 1
        target = self._parent / str(self._lives)
        target.mkdir()
        for path in self._folder.glob(f"{DATABASE}*"):
            if not path.name.endswith("-shm"):  # memory that dies with the process; SQLite makes it anew from the log
                shutil.copyfile(path, target / path.name)
        return target
