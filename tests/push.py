"""A running HTTP front for tests, and a client of it."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg

from citynet import tokens
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.ingest import wait_for
from tests.patience import DEADLINE_S

ANSWER_S = 60.0  # the machine of a test may be slow; a test of the deadline sets its own


class Front:
    """``citynet ingest http`` as its own process; `authority` is the certificate that clients trust if it speaks TLS."""

    def __init__(
        self,
        folder: Path,
        broker_port: int,
        dsn: str,
        settings: Mapping[str, object],
        sources: str,
        authority: Path | None = None,
    ) -> None:
        self.port = child.free_port()
        self.dsn = dsn
        self.log = folder / "push.log"
        self._url = f"{'https' if authority else 'http'}://127.0.0.1:{self.port}"
        self._trust = ssl.create_default_context(cafile=authority) if authority else True
        self._probe = httpx.Client(base_url=self._url, timeout=DEADLINE_S, verify=self._trust)
        lines = [f"{key} = {json.dumps(value)}" for key, value in {"answer_s": ANSWER_S, **settings}.items()]
        config = folder / "push.toml"
        head = f"[broker]\nport = {broker_port}\n[database]\ndsn = {json.dumps(dsn)}\n[push]\nport = {self.port}\n"
        config.write_text(head + "\n".join(lines) + "\n" + sources)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "citynet", "ingest", "http", "--config", str(config)],
                stdout=output, stderr=output, env=dict(os.environ),
            )  # fmt: skip

    def ready(self) -> bool:
        try:
            return self._probe.get("/ready").status_code == 200
        except httpx.TransportError:
            assert self.process.poll() is None, self.log.read_text()
            return False

    def close(self) -> None:
        self._probe.close()
        child.stop(self.process)

    def client(self, source: str) -> httpx.Client:
        """A client with a token of this source."""
        headers = {"Authorization": f"Bearer {self.token(source)}"}
        return httpx.Client(base_url=self._url, headers=headers, timeout=ANSWER_S + 10, verify=self._trust)

    def token(self, source: str, role: str = "source") -> str:
        token = tokens.mint(secrets.token_bytes(tokens.SECRET_BYTES))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO api_token (name, role, digest, source) VALUES (%s, %s, %s, %s)",
                (f"{source}-{secrets.token_hex(4)}", role, tokens.digest(token), source if role == "source" else None),
            )
        return token


@contextmanager
def front_running(
    folder: Path,
    broker: EmbeddedMosquitto,
    dsn: str,
    settings: Mapping[str, object] | None = None,
    sources: str = "",
    authority: Path | None = None,
) -> Iterator[Front]:
    """An HTTP front that is connected to the broker; stopped at the end."""
    front = Front(folder, broker.port, dsn, settings or {}, sources, authority)
    try:
        wait_for(front.ready, "the HTTP front is ready")
        yield front
    finally:
        front.close()
