"""The embedded database starts again after kill -9, however long the old server's children linger and whatever they say."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack

import psycopg

from citynet.runtime.embedded import EmbeddedPostgres
from tests.ingest import wait_for

SESSIONS = 6  # more last words than lines that somebody might look at


def test_started_while_the_old_servers_children_linger(database: EmbeddedPostgres) -> None:
    """They are held up until the new server has refused to start beside them, and say farewell in the same log."""
    log = database.folder / "postgres.log"
    with ExitStack() as stack:
        sessions = [stack.enter_context(psycopg.connect(database.dsn(), autocommit=True)) for _ in range(SESSIONS)]
        pids = [session.info.backend_pid for session in sessions]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        database.kill()

        def let_go() -> None:
            try:
                wait_for(lambda: "shared memory" in log.read_text(), "the new server refuses")
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)

        helper = threading.Thread(target=let_go)
        helper.start()
        database.start()
        helper.join()
    with psycopg.connect(database.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
