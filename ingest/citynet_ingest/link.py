"""The one connection on which a worker reads and commits, with the locks of its lanes. Used by one thread at a time.

Connection-class errors are retried until they end or the worker stops; nothing was acknowledged meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from citynet.runtime import log
from citynet_ingest.lanes import lanes_of
from citynet_ingest.ownership import StoppedError, lock
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.store import sql
from citynet_ingest.store.transaction import Connection, Partitions
from citynet_ingest.watchdog import Watchdog

T = TypeVar("T")
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
_PATIENCE_S = 3.0  # at the start; a killed predecessor's connection ends within milliseconds, or a second (`_PROBES`)
_PATIENCE_AGAIN_S = 60.0  # after a connection of our own was lost: longer than the server's probes take
_log = log.get("committer")


class Link:
    """A connection that is made anew when it breaks, and never used without the locks."""

    def __init__(self, connect: Callable[[], Connection], settings: IngestSettings) -> None:
        self._connect = connect
        self._settings = settings
        self._connection: Connection | None = None
        self._outage = log.OutageLog(_log, "database")
        self._has_owned = False
        self.lanes = lanes_of(parse_shards(settings.shards))
        self.has_columnstore = False
        self.opened = 0  # connections so far
        self.partitions = Partitions()
        self.stopping = threading.Event()
        self.watchdog = Watchdog()

    @property
    def is_up(self) -> bool:
        return not self._outage.failing

    def open(self) -> Connection:
        """The connection, a new one if need be.

        Raises:
            psycopg.Error: no way to the database. ShardTakenError, StoppedError: as `ownership.lock`.
        """
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = self._connect()
        self.watchdog.attach(connection.pgconn.socket)
        try:
            timeout_ms = int(self._settings.commit_statement_timeout_s * 1000)
            connection.execute(f"SET statement_timeout = {timeout_ms}")
            # Whatever the server's default is: the guarantee needs it.
            connection.execute("SET synchronous_commit = on")
            patience_s = _PATIENCE_AGAIN_S if self._has_owned else _PATIENCE_S
            lock(connection, self.lanes, patience_s, self.stopping, self.watchdog)
            self._has_owned = True
            row = connection.execute(sql.text("has_columnstore")).fetchone()
        except BaseException:
            self.watchdog.detach()
            connection.close()
            raise
        self.has_columnstore = bool(row and row[0])
        self._connection = connection
        self.opened += 1
        self.partitions.forget()
        return connection

    def close(self) -> None:
        self.watchdog.detach()
        if self._connection is not None:
            self._connection.close()

    def retry(self, action: Callable[[], T], patience_s: float | None = None) -> T:
        """Do it; on connection-class errors again, with backoff, until it works or the worker stops.

        A try that takes longer than `patience_s` (unless given, what a commit may take) has its connection cut.
        """
        pause = 0.05
        while True:
            try:
                with self.watchdog.limit(patience_s or self._settings.commit_timeout_s):
                    result = action()
            except AWAY as error:
                self._outage.failed(error)
                self._drop(error)
                if self.stopping.wait(pause):
                    raise StoppedError("stopped while the database is away") from None
                pause = min(pause * 2, self._settings.retry_s_max)
            else:
                self._outage.worked()
                return result

    def _drop(self, error: psycopg.Error) -> None:
        """A connection that cannot go on, or that leads to a server which turned read-only (a failover), is given up."""
        connection = self._connection
        if connection is None:
            return
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) or not _can_go_on(connection):
            self.watchdog.detach()
            connection.close()
            self._connection = None


def _can_go_on(connection: Connection) -> bool:
    """Whether an action that failed has left the connection as it found it: open, outside of a transaction and of a pipeline.

    Not being broken is not enough: where the server ends the connection during `executemany`, psycopg may leave libpq in its
    pipeline, with the socket not read to its end. Every statement is then refused before anything is sent, for ever.
    """
    return (
        not connection.closed
        and connection.pgconn.transaction_status == TransactionStatus.IDLE
        and connection.pgconn.pipeline_status == PipelineStatus.OFF
    )
