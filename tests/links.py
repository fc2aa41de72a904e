"""Links of the field: a thin one with a long way, and one that speaks WebSocket; and certificates made for a test."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 512


class Bridge:
    """Listens on 127.0.0.1:`port` and joins every connection with one to `target`; subclasses say how bytes travel."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_open = True
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_open = False
        for end in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @staticmethod
    def _spawn(work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if not self._is_open:  # what the end did not find would never be closed
                    client.close()
                    server.close()
                    return
                self._sockets += (client, server)
            self.accepted += 1
            self._spawn(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        raise NotImplementedError


class ThinLink(Bridge):
    """Carries `rate_bytes_s` each way, and every byte takes `delay_s`. Its buffers are small, so a sender feels it."""

    def __init__(self, target: int, rate_bytes_s: int, delay_s: float) -> None:
        super().__init__(target)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._rate_bytes_s = rate_bytes_s
        self._delay_s = delay_s
        self.carried_bytes = 0

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        for source, sink in ((client, server), (server, client)):
            line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            self._spawn(self._take, source, line)
            self._spawn(self._give, sink, line)

    def _take(self, source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        free_at_s = time.monotonic()
        data = b"-"
        while data:
            try:
                data = source.recv(_CHUNK_BYTES)
            except OSError:
                data = b""
            free_at_s = max(free_at_s, time.monotonic()) + len(data) / self._rate_bytes_s
            time.sleep(max(0.0, free_at_s - time.monotonic()))
            self.carried_bytes += len(data)
            line.put((free_at_s + self._delay_s, data))

    @staticmethod
    def _give(sink: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        while True:
            due_s, data = line.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            with contextlib.suppress(OSError):
                if not data:
                    sink.shutdown(socket.SHUT_RDWR)
                sink.sendall(data)
            if not data:
                return


class WebSocketFront(Bridge):
    """Speaks WebSocket (RFC 6455, binary messages) in front of a plain MQTT broker; `paths` were asked for."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.paths: list[str] = []

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, LookupError):  # it ended before it had said all
            self._speak(client, server)

    def _speak(self, client: socket.socket, server: socket.socket) -> None:
        stream = client.makefile("rb")
        path = stream.readline().split()[1].decode()
        headers = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.paths.append(path)
        digest = hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())  # noqa: S324
        accept = base64.b64encode(digest.digest()).decode()
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        self._spawn(self._to_client, server, client)
        with contextlib.suppress(OSError, ValueError, IndexError):
            while True:
                head = stream.read(2)
                length = head[1] & 0x7F
                if length >= 126:
                    length = int.from_bytes(stream.read(2 if length == 126 else 8), "big")
                mask, data = stream.read(4), stream.read(length)
                if head[0] & 0x0F == 8:
                    break
                server.sendall(bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))
        server.close()

    @staticmethod
    def _to_client(server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(4096):
                client.sendall(
                    b"\x82" + (bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")) + data
                )
            client.close()


class Authority:
    """Certificates signed by an authority of our own, made by the ``openssl`` program in a folder that brokers can read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self._folder = folder
        self.ca = folder / "ca.crt"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.crt",
        )  # fmt: skip

    def issue(self, name: str, *, days: int = 30) -> tuple[Path, Path]:
        """(certificate, key) for `name` and 127.0.0.1; with no days it expires at once."""
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        (self._folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", str(days), "-extfile", "extensions", "-out", f"{name}.crt",
        )  # fmt: skip
        (self._folder / f"{name}.key").chmod(0o644)
        return self._folder / f"{name}.crt", self._folder / f"{name}.key"

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._folder, check=True, capture_output=True)
