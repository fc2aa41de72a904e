"""The HTTP push driver in a gateway process, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from citynet.errors import ConfigError
from citynet.formats import SENML
from citynet.runtime import child
from citynet_gateway.cli import build
from citynet_gateway.pushed_config import PushedConfig
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.timekeeper import wall_us
from tests.cabinet import Cabinet
from tests.gateway import wait_for
from tests.patience import DEADLINE_S

TOKEN, NARROW = "a-long-enough-token", "another-long-token"
AT_MS = 1_790_000_000_000


class Shop(Cabinet):
    """A cabinet whose gateway takes pushes."""

    def __init__(self, folder: Path) -> None:
        self.port = child.free_port()
        (folder / "tokens").write_text(f"# who may push\n{TOKEN}\n{NARROW} pump-* valve-1\n")
        self.table = f'[gateway.push]\nport = {self.port}\ntoken_file = "{folder / "tokens"}"\n'
        super().__init__(folder, self.table)

    def listen(self, failpoint: str = "") -> None:
        self.start("push-listening", failpoint)

    def push(self, body: object, device: str = "pump-1", method: str = "POST", **headers: str) -> tuple[int, Any, Any]:
        """Status, body and headers of the answer; keywords are headers, with _ for -."""
        given = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        given |= {key.replace("_", "-"): value for key, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused by its head: there is an answer
                connection.request(method, f"/push/{device}", data, given)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    found = Shop(folder)
    yield found
    found.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_both_formats_are_taken_and_bad_values_cost_only_themselves(shop: Shop) -> None:
    shop.listen()
    assert shop.push({"ts": AT_MS, "values": {"flow": 1.5, "leak_alarm": 1, "name": "x"}})[:2] == (
        200,
        {"readings": 2, "rejected": 1},
    )
    assert shop.push([{"n": "level", "v": 2.5, "t": AT_MS // 1000}], Content_Type=SENML)[0] == 200
    assert sorted(shop.wait_readings(3)) == [("pump-1/flow", 1.5), ("pump-1/leak_alarm", 1.0), ("pump-1/level", 2.5)]
    wait_for(shop.raws, "the raw note")
    assert [raw.reason for raw in shop.raws()] == ["not-a-number at $.values.name: x"]


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        ({"body": b"{"}, 400, "unreadable"),
        ({"body": b""}, 400, "bad-request"),
        ({"body": {"a": 1}, "Idempotency_Key": "x" * 300}, 400, "bad-request"),
        ({"body": {"a": 1}, "Authorization": "Bearer wrong"}, 401, "unauthenticated"),
        ({"body": {"a": 1}, "Authorization": f"Basic {TOKEN}"}, 401, "unauthenticated"),
        ({"body": {"a": 1}, "Authorization": f"Bearer {NARROW}", "device": "valve-2"}, 403, "forbidden"),
        ({"body": {"a": 1}, "device": "no!id"}, 404, "not-found"),
        ({"body": {"a": 1}, "device": "a/b"}, 404, "not-found"),
        ({"body": b"", "method": "GET"}, 405, "method-not-allowed"),
        ({"body": b" " * 262_145}, 413, "body-too-large"),
        ({"body": {"a": 1}, "Content_Type": "text/csv"}, 415, "unsupported-media-type"),
        ({"body": {"a": 1}, "Content_Encoding": "gzip"}, 415, "unsupported-media-type"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(shop: Shop, request_: dict[str, Any], status: int, kind: str) -> None:
    shop.listen()
    found, body, headers = shop.push(**request_)
    assert (found, body["status"], body["type"]) == (status, status, f"urn:citynet:problem:{kind}")
    assert headers["Content-Type"] == "application/problem+json"
    assert body["detail"]
    assert shop.push({"a": 1}, Authorization=f"Bearer {NARROW}")[0] == 200
    assert shop.wait_readings(1) == [("pump-1/a", 1.0)]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"POST /push/a HTTP/2\r\n\r\n", 400),
        (b"POST /push/a HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST /push/a HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /push/a HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /push/a HTTP/1.1\r\n\r\n", 411),
        (b"POST /push/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /push/a HTTP/1.1\r\nX: " + b"x" * 9_000 + b"\r\n\r\n", 431),
    ],
)  # fmt: skip
def test_heads_that_are_none(shop: Shop, stack: ExitStack, head: bytes, status: int) -> None:
    shop.listen()
    line = stack.enter_context(socket.create_connection(("127.0.0.1", shop.port), DEADLINE_S))
    line.sendall(head)
    assert line.recv(4_096).startswith(b"HTTP/1.1 %d " % status)


def test_one_connection_may_carry_many_requests_and_expect_to_be_told_to_go_on(shop: Shop, stack: ExitStack) -> None:
    shop.listen()
    line = stack.enter_context(socket.create_connection(("127.0.0.1", shop.port), DEADLINE_S))
    for number in range(3):
        body = json.dumps({"a": number}).encode()
        line.sendall(
            b"POST /push/pump-1 HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (TOKEN.encode(), len(body))
        )
        assert line.recv(4_096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(body)
        assert line.recv(4_096).startswith(b"HTTP/1.1 200 ")
    assert [value for _, value in shop.wait_readings(3)] == [0.0, 1.0, 2.0]


def test_a_key_makes_a_repetition_harmless_also_after_a_kill(shop: Shop) -> None:
    shop.listen("gateway.after-sync:2")
    assert shop.push({"a": 1}, Idempotency_Key="one")[0] == 200
    assert shop.push({"a": 1}, Idempotency_Key="one")[0] == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        shop.push({"a": 2}, Idempotency_Key="two")
    shop.gateway.wait_dead()
    shop.listen()
    assert shop.push({"a": 2}, Idempotency_Key="two")[0] == 200
    assert shop.push({"a": 3}, Idempotency_Key="three")[0] == 200
    assert [value for _, value in shop.wait_readings(3)] == [1.0, 2.0, 3.0]


def test_a_full_spool_is_a_503_with_a_time_to_wait(shop: Shop) -> None:
    shop.configure(shop.table + "answer_s = 0.5\n", segment_bytes=64 << 10, spool_bytes_max=8 << 20, sync_interval_ms=1)
    shop.server.mute = True
    shop.listen()
    big = {"a": "x" * 60_000}  # a raw note each
    for number in range(300):
        status, body, headers = shop.push({**big, "n": number}, Idempotency_Key=str(number))
        while status != 200 and not shop.is_full:  # or a slow disk: it is kept once, by its key
            status, body, headers = shop.push({**big, "n": number}, Idempotency_Key=str(number))
        if status != 200:
            break
    assert (status, body["type"], headers["Retry-After"]) == (503, "urn:citynet:problem:busy", "5")
    wait_for(lambda: shop.is_full, "the status says full")
    shop.server.mute = False
    wait_for(lambda: shop.push({**big, "n": number}, Idempotency_Key=str(number))[0] == 200, "room again")
    wait_for(lambda: len(shop.readings()) > number, "everything arrived")
    assert [int(value) for _, value in shop.readings()] == list(range(number + 1))


def test_slow_senders_keep_nobody_out(shop: Shop, stack: ExitStack) -> None:
    shop.configure(shop.table + "connections_max = 4\nread_s = 1.0\n")
    shop.listen()
    slow = [stack.enter_context(socket.create_connection(("127.0.0.1", shop.port), DEADLINE_S)) for _ in range(8)]
    for line in slow:
        line.sendall(b"POST /push/a HT")
    for number in range(5):  # a request that the machine leaves half sent for a second is a slow one as well
        wait_for(lambda number=number: shop.push({"a": number})[0] == 200, "another sender's turn")
    assert all(_ended(line) for line in slow)
    half = stack.enter_context(socket.create_connection(("127.0.0.1", shop.port), DEADLINE_S))
    half.sendall(
        b"POST /push/pump-1 HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: 100\r\n\r\n{" % TOKEN.encode()
    )
    assert half.recv(4_096).startswith(b"HTTP/1.1 408 ")


def test_tls(shop: Shop) -> None:
    key, cert = shop.folder / "key.pem", shop.folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    shop.configure(shop.table + f'tls_cert_file = "{cert}"\ntls_key_file = "{key}"\n')
    shop.listen()
    context = ssl.create_default_context(cafile=str(cert))
    with closing(
        http.client.HTTPSConnection("127.0.0.1", shop.port, timeout=DEADLINE_S, context=context)
    ) as connection:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        connection.request("POST", "/push/pump-1", b'{"a": 1}', headers)
        assert connection.getresponse().status == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        shop.push({"a": 2})
    assert shop.wait_readings(1) == [("pump-1/a", 1.0)]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ('host = "0.0.0.0"\nport = 8080', "token_file is needed unless host is a loopback address"),
        ('port = 8080\ntls_cert_file = "x"', "belong together"),
        ('port = 8080\ntoken_file = "/nowhere"', "gateway.push.token_file /nowhere: No such file"),
        ('port = 8080\ntoken_file = "short"', "line 1: a token has at least 16 characters"),
        ('port = 8080\ntoken_file = "none"', "no token"),
        ('port = 8080\ntls_cert_file = "none"\ntls_key_file = "none"', "gateway.push.tls_cert_file none: "),
    ],
)
def test_mistakes_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("abc\n")
    (tmp_path / "none").write_text("# nothing\n")
    (tmp_path / "citynet.toml").write_text(f'[gateway]\ndata_dir = "data"\n[gateway.push]\n{table}\n')
    try:
        pushed = PushedConfig(LocalFiles(), None, {}, wall_us)
        build(pushed.begin(), pushed)
    except ConfigError as error:
        assert text in str(error)
    else:
        pytest.fail("taken")


def _ended(line: socket.socket) -> bool:
    try:
        while line.recv(4_096):
            pass
    except ConnectionResetError:
        return True
    return True
