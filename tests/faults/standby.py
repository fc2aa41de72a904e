"""A hot standby of an embedded PostgreSQL, made by base backup, that can be promoted."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg

from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedError, EmbeddedPostgres
from tests.ingest import query, wait_for

NAME = "standby"


class Standby(EmbeddedPostgres):
    """Follows `primary`; after `synchronise` a commit is not answered before it is on both."""

    def __init__(self, folder: Path, primary: EmbeddedPostgres) -> None:
        link = f"{primary.dsn()}?application_name={NAME}"
        super().__init__(folder, {"primary_conninfo": link})
        self._primary = primary

    def _initialise(self, programs: Path) -> None:
        shutil.copy(self._primary._password_file, self._password_file)
        self._data.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        command = [
            str(programs / "pg_basebackup"),
            "-d",
            self._primary.dsn(),
            "-D",
            str(self._data),
            "-R",
            "-c",
            "fast",
        ]
        with (self.folder / "basebackup.log").open("wb") as output:
            if child.spawn([*command, "--no-sync"], output, user=self._user).wait() != 0:
                raise EmbeddedError(f"pg_basebackup failed:\n{(self.folder / 'basebackup.log').read_text()}")

    def synchronise(self) -> None:
        """Make the primary wait for us from now on."""
        with psycopg.connect(self._primary.dsn(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")
            connection.execute("SELECT pg_reload_conf()")
        state = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_for(lambda: query(self._primary.dsn(), state), "the standby follows")

    def promote(self) -> None:
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote(wait => true)")


def dsn_of_both(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> str:
    """One connection string with both hosts, for whichever takes writes."""
    address = primary.dsn().replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
    return f"{address}?target_session_attrs=read-write"
