"""The HTTP front against a real broker, database and worker: 200 only after COMMIT, and every other answer."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from citynet import formats, topics, wire
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.store.migrate import migrate
from tests.ingest import IngestProcess, ingest_running, now_us, query, some_readings, stored
from tests.links import Authority
from tests.push import Front, front_running

SOURCES = """
[[push.sources]]
name = "nbiot-1"
dedupe = "body"

[[push.sources]]
name = "lora-1"
format = "chirpstack"
"""


@dataclass(frozen=True)
class Stage:
    """A broker, a database, a worker and a front that the quiet tests share, each under sources of its own."""

    dsn: str
    ingest: IngestProcess
    front: Front

    def values(self, source: str) -> list[float]:
        return sorted(value for name, _, value, _ in stored(self.dsn) if name.startswith(f"{source}/"))

    def dead(self, topic: str) -> list[tuple[str, bytes]]:
        found = query(self.dsn, "SELECT reason, payload FROM dead_letter WHERE topic = %s ORDER BY id", topic)
        return [(str(reason), bytes(payload)) for reason, payload in found]


@pytest.fixture(scope="module")
def stage(server_dsn: str) -> Iterator[Stage]:
    name = f"citynet_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    dsn = make_conninfo(server_dsn, dbname=name)
    migrate(dsn)
    with tempfile.TemporaryDirectory(prefix="citynet-test-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        folder.chmod(0o711)
        with (
            EmbeddedMosquitto(folder / "broker") as broker,
            ingest_running(folder, broker, dsn) as ingest,
            front_running(folder, broker, dsn, sources=SOURCES) as front,
        ):
            yield Stage(dsn, ingest, front)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def body_of(value: float) -> bytes:
    return b'{"ts": %d, "values": {"level_m": %r}}' % (now_us() // 1000, value)


def kind_of(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["type"].removeprefix("urn:citynet:problem:")


def batch(seq0: int, readings: list[Reading], gateway: str = "gw-h") -> bytes:
    return wire.encode(wire.Header(gateway, "telemetry", 7, seq0, len(readings)), readings)


def test_a_message_is_stored_once_by_its_key_and_as_often_as_it_is_sent_without(stage: Stage) -> None:
    json = {"Content-Type": "application/json"}
    with stage.front.client("plant-1") as client:
        once = {**json, "Idempotency-Key": "order-1"}
        first, second = (client.post("/v1/push/plant-1", content=b'{"a": 1}', headers=once) for _ in range(2))
        assert (first.status_code, first.json()) == (200, {"stored": 1, "dead_lettered": 0, "duplicate": False})
        assert (second.status_code, second.json()) == (200, {"stored": 0, "dead_lettered": 0, "duplicate": True})
        other = client.post("/v1/push/plant-1", content=b'{"a": 2}', headers=once)
        assert kind_of(other) == (422, "idempotency-key-reused")
        for _ in range(2):  # two honest messages that look the same
            assert client.post("/v1/push/plant-1", content=b'{"a": 3}', headers=json).json()["stored"] == 1
    assert stage.values("plant-1") == [1.0, 3.0, 3.0]
    assert stage.dead(topics.push("plant-1")) == [("idempotency-key-reused", b'{"a": 2}')]
    with stage.front.client("nbiot-1") as client:
        answers = [client.post("/v1/push/nbiot-1", content=b'{"b": 9}', headers=json) for _ in range(2)]
    assert [(answer.status_code, answer.json().get("duplicate")) for answer in answers] == [(200, False), (200, True)]
    assert stage.values("nbiot-1") == [9.0]


def test_poison_is_answered_and_kept(stage: Stage) -> None:
    with stage.front.client("plant-2") as client:
        broken = client.post("/v1/push/plant-2", content=b"{", headers={"Content-Type": formats.THINGSBOARD})
        assert (broken.status_code, broken.json()["dead_lettered"], broken.json()["reason"]) == (200, 1, "bad-json")
        half = b'[{"n":"a","v":1},{"n":"b","vs":"x"}]'
        mixed = client.post("/v1/push/plant-2", content=half, headers={"Content-Type": formats.SENML}).json()
        assert (mixed["stored"], mixed["dead_lettered"], mixed["where"]) == (1, 1, "$[1].vs")
    assert stage.values("plant-2") == [1.0]
    assert [reason for reason, _ in stage.dead(topics.push("plant-2"))] == ["bad-json", "not-a-number"]


def test_requests_that_are_refused(stage: Stage) -> None:
    kind = "Content-Type"
    json, html, path = {kind: "application/json"}, {kind: "text/html"}, "/v1/push/plant-3"
    with stage.front.client("plant-3") as client:
        long_key, packed = {**json, "Idempotency-Key": "x" * 256}, {**json, "Content-Encoding": "gzip"}
        refused = [
            (client.post("/v1/push/plant-x", content=b"{}", headers=json), (403, "forbidden")),
            (client.post(path, content=b"x", headers=html), (415, "unsupported-media-type")),
            (client.post("/v1/batches", content=b"x", headers={kind: formats.SENML}), (415, "unsupported-media-type")),
            (client.post(path, content=b"{}", headers=packed), (415, "unsupported-media-type")),
            (client.post(path, content=b" " * 262_145, headers=json), (413, "body-too-large")),
            (client.post(path, content=iter([b" " * 262_144, b" "]), headers=json), (413, "body-too-large")),
            (client.post(path, content=b"", headers=json), (400, "bad-request")),
            (client.post(path, content=b"{}", headers=long_key), (400, "bad-request")),
            (client.get(path), (405, "method-not-allowed")),
            (client.post("/v1/nothing"), (404, "not-found")),
        ]
        admin = {**json, "Authorization": f"Bearer {stage.front.token('root', 'admin')}"}
        refused += [
            (client.post(path, content=b"{}", headers=headers), (401, "unauthenticated"))
            for headers in ({**json, "Authorization": "Bearer none"}, admin)
        ]
    assert [kind_of(response) for response, _ in refused] == [expected for _, expected in refused]
    assert stage.dead(topics.push("plant-3")) == []


def test_batches_keep_their_sequence(stage: Stage) -> None:
    readings = some_readings(60, now_us() - 600_000_000)
    cbor = {"Content-Type": wire.CBOR}
    with stage.front.client("gw-h") as client:
        first = client.post("/v1/batches", content=batch(1, readings[:20]), headers=cbor)
        assert (first.status_code, first.json()["seq"], first.json()["stored"]) == (200, 20, 20)
        again = client.post("/v1/batches", content=batch(1, readings[:20]), headers=cbor).json()
        assert (again["seq"], again["why"], again["stored"], again["duplicate"]) == (20, "duplicate", 0, True)
        gap = client.post("/v1/batches", content=batch(41, readings[40:]), headers=cbor)
        assert kind_of(gap) == (409, "gap")
        assert gap.json()["seq"] == 20
        rest = client.post("/v1/batches", content=batch(11, readings[10:]), headers=cbor).json()
        assert (rest["seq"], rest["stored"]) == (60, 40)
        broken = b'{"v": 1, "gw": "gw-h", "st": "telemetry", "ep": 7, "s0": 61, "n": 2}'
        poison = client.post("/v1/batches", content=broken, headers={"Content-Type": wire.JSON}).json()
        assert (poison["seq"], poison["stored"], poison["dead_lettered"]) == (62, 0, 2)
        foreign = client.post("/v1/batches", content=batch(63, readings[:1], "gw-x"), headers=cbor)
        assert (kind_of(foreign), foreign.json()["reason"]) == ((422, "unreadable-batch"), "identity-mismatch")
    assert len(stage.values("gas-1")) == 60
    assert query(stage.dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor WHERE epoch = 7") == [(62, 60, 2)]


def test_a_hundred_at_once_each_stored_before_its_answer(stage: Stage) -> None:
    def push(number: int) -> bool:
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(number)}
        response = client.post("/v1/push/plant-4", content=b'{"m%d": 1}' % number, headers=headers)
        assert response.status_code == 200, response.text
        text = "SELECT 1 FROM reading r JOIN series s ON s.id = r.series_id WHERE s.metric = %s"
        return query(stage.dsn, text, f"m{number}") == [(1,)]

    with stage.front.client("plant-4") as client, ThreadPoolExecutor(32) as pool:
        assert all(pool.map(push, range(100)))
    assert len(stage.values("plant-4")) == 100


def test_random_bytes_never_break_it(stage: Stage) -> None:
    rng = random.Random(7)
    kinds = [formats.THINGSBOARD, formats.SENML, formats.SENML_CBOR, formats.CHIRPSTACK]
    with stage.front.client("plant-5") as client:
        for number in range(60):
            body = rng.randbytes(rng.randint(1, 200))
            response = client.post("/v1/push/plant-5", content=body, headers={"Content-Type": kinds[number % 4]})
            assert response.status_code == 200, response.text
            response = client.post("/v1/batches", content=body, headers={"Content-Type": wire.CBOR})
            assert kind_of(response) == (422, "unreadable-batch")
        ok = client.post("/v1/push/plant-5", content=body_of(1.0), headers={"Content-Type": "application/json"})
        assert ok.json()["stored"] == 1
    assert stage.ingest.running.poll() is None


def test_too_many_at_once_of_one_source(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    """Nobody commits, so a request waits; the next ones do not fit. Then there is a worker, and the one gets its answer."""
    settings = {"inflight_per_source_max": 1}
    with ingest_running(folder, broker, dsn) as worker:
        worker.stop()  # the broker keeps its session
        with front_running(folder, broker, dsn, settings) as front, front.client("plant-1") as client:

            def push(_: int) -> httpx.Response:
                body = b'{"a": 1}'
                return client.post("/v1/push/plant-1", content=body, headers={"Content-Type": "application/json"})

            with ThreadPoolExecutor(4) as pool:
                pending = [pool.submit(push, number) for number in range(4)]
                refused = [answer.result() for answer in islice(as_completed(pending), 3)]
                worker.start()
                answers = [answer.result() for answer in pending]
    assert [kind_of(answer) for answer in refused] == [(429, "too-many-of-source")] * 3
    assert all(answer.headers["retry-after"] == "2" for answer in refused)
    (taken,) = [answer for answer in answers if answer not in refused]
    assert (taken.status_code, taken.json()["stored"]) == (200, 1)


def test_tls(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    authority = Authority(folder / "authority")
    certificate, key = authority.issue("front")
    settings = {"tls_cert_file": str(certificate), "tls_key_file": str(key)}
    with (
        ingest_running(folder, broker, dsn),
        front_running(folder, broker, dsn, settings, SOURCES, authority.ca) as front,
        front.client("plant-1") as client,
    ):
        answer = client.post("/v1/push/plant-1", content=body_of(2.5), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["stored"]) == (200, 1)
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(f"https://127.0.0.1:{front.port}/ready", timeout=10)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{front.port}/ready", timeout=10)
        assert f"https://127.0.0.1:{front.port}" in front.log.read_text()
    assert [row[2] for row in stored(dsn)] == [2.5]


@pytest.mark.parametrize("failpoint", ["ingest.before-commit:2", "ingest.after-commit:2"])
def test_killed_before_its_answer_the_retry_with_its_key_stores_it_once(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, failpoint: str
) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    with (
        ingest_running(folder, broker, dsn, failpoint=failpoint) as worker,
        front_running(folder, broker, dsn, {"answer_s": 6.0}) as front,
        front.client("plant-1") as client,
    ):
        worker.wait_connected()
        response = client.post("/v1/push/plant-1", content=b'{"a": 5}', headers=headers)
        assert kind_of(response) == (503, "no-answer")
        assert response.headers["retry-after"] == "2"
        assert worker.died() == -9
        worker.start()
        answers = [response]
        while answers[-1].status_code != 200:  # a slow start of the worker is one more 503
            assert len(answers) < 10, answers[-1].text
            answers.append(client.post("/v1/push/plant-1", content=b'{"a": 5}', headers=headers))
        assert (
            answers[-1].json()["duplicate"] is True
        )  # the broker's redelivery was first, or the commit had gone through
    assert [value for _, _, value, _ in stored(dsn)] == [5.0]
