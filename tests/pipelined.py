"""A committer with its writer on a real database, without a broker: parcels in, what it told and when out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import mqtt5
import psycopg
from psycopg.conninfo import make_conninfo

from citynet import formats, topics, wire
from citynet.reading import Reading
from citynet_ingest.commit import Answers
from citynet_ingest.committer import Committer
from citynet_ingest.intake import IDEMPOTENCY_KEY, Intake
from citynet_ingest.parcel import Parcel
from citynet_ingest.settings import IngestSettings
from citynet_ingest.sources import Sources
from citynet_ingest.watermarks import Watermarks
from citynet_rules.spec import RuleSet
from tests.ingest import now_us, query, wait_for
from tests.patience import DEADLINE_S

NAME = "pipelined"
NO_RULES = RuleSet(())
_INTAKE = Intake(range(64), formats.THINGSBOARD, Sources([]))
_START_MS = now_us() // 1_000


class Pipe:
    """A committer on a thread of its own. `told` has the packet ids of every answer, in the order in which it was given.

    Whatever is told is looked up in the database at that moment: a cursor that is not there yet fails the commit.
    """

    def __init__(
        self, dsn: str, on_told: Callable[[Answers], None] = lambda _: None, rules: RuleSet = NO_RULES, **settings: Any
    ) -> None:
        self.dsn = dsn
        self.told: list[int] = []
        self._on_told = on_told
        self._witness = psycopg.connect(dsn, autocommit=True)
        self._thread = ThreadPoolExecutor(1, "committer")
        given = IngestSettings(**{"retry_s_max": 0.2, **settings})
        connect = lambda: psycopg.connect(make_conninfo(dsn, application_name=NAME), autocommit=True)  # noqa: E731
        self.committer = Committer(connect, given, rules, Watermarks(10_000_000, 30_000_000))
        self.call(self.committer.recover)

    def call(self, action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Do something on the committer's thread, after what was given before."""
        return self._thread.submit(action, *arguments, **more).result(DEADLINE_S)

    def give(self, *parcels: Parcel) -> Future[None]:
        """Have a commit made of these parcels."""
        return self._thread.submit(self.committer.take, parcels, self._tell)

    def settle(self) -> None:
        self.call(self.committer.check)

    def wait_planned(self, gateway: str, seq: int) -> None:
        """Until the plans have come so far, whatever is written by then."""
        key = (gateway, wire.TELEMETRY, 1)
        wait_for(lambda: self.committer.state.cursors.get(key) == seq, f"{seq} is planned")

    def stop(self) -> None:
        self.call(self.committer.flush)
        self.close()

    def close(self) -> None:
        """Leave at once, as a worker that fails."""
        self.committer.stopping.set()
        self._thread.shutdown()
        self.committer.close()
        self._witness.close()

    def _tell(self, answers: Sequence[Answers]) -> None:
        for answer in answers:
            for (gateway, stream, epoch, _), ack in answer.acks.items():
                stands = self._witness.execute(
                    "SELECT seq FROM stream_cursor WHERE (gateway, stream, epoch) = (%s, %s, %s)",
                    (gateway, stream, epoch),
                ).fetchone()
                durable = int(str(stands[0])) if stands else 0
                assert ack.seq <= durable, f"{gateway} was told {ack.seq}, the database has {durable}"
            self.told += [packet_id for ids in answer.pubacks.values() for packet_id in ids]
            self._on_told(answer)


def batch(packet_id: int, gateway: str, seq0: int, values: Sequence[float], start_us: int | None = None) -> Parcel:
    """Readings `seq0`.. of a gateway, a second apart, the number one at `start_us`."""
    first_us = (start_us or now_us() - 3_600_000_000) + seq0 * 1_000_000
    readings = [Reading(f"{gateway}-d", "x", first_us + k * 1_000_000, value) for k, value in enumerate(values)]
    return sent(packet_id, gateway, seq0, readings)


def sent(packet_id: int, gateway: str, seq0: int, readings: Sequence[Reading]) -> Parcel:
    """These readings of a gateway, `seq0`.."""
    header = wire.Header(gateway, wire.TELEMETRY, 1, seq0, len(readings))
    return _parcel(packet_id, topics.up(gateway), wire.encode(header, readings), wire.CBOR)


def message(packet_id: int, device: str, value: float, *, key: str = "", again: bool = False) -> Parcel:
    """A message of a device without a gateway: with a key, or delivered again."""
    body = b'{"ts": %d, "values": {"x": %r}}' % (_START_MS, value)
    return _parcel(packet_id, topics.dev(device), body, formats.THINGSBOARD, key=key, again=again)


def _parcel(
    packet_id: int, topic: str, body: bytes, content_type: str, *, key: str = "", again: bool = False
) -> Parcel:
    packet = mqtt5.PublishPacket(
        topic, body, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id, duplicate=again, content_type=content_type,
        user_properties=[(IDEMPOTENCY_KEY, key)] if key else [],
    )  # fmt: skip
    return _INTAKE.take(packet, 1, now_us())


@contextmanager
def holding(dsn: str, statement: str = "LOCK TABLE reading IN ACCESS EXCLUSIVE MODE") -> Iterator[None]:
    """No readings are written meanwhile: a commit under way waits, and goes on afterwards."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        yield


def blocked(dsn: str) -> int:
    """Wait until the writer waits for a lock; the process that serves it."""
    text = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    text += " AND datname = current_database()"
    return int(wait_for(lambda: query(dsn, text, NAME), "the writer waits")[0][0])


def cut(dsn: str) -> None:
    """End the writer's connection while it waits for a lock, and wait until the next one waits."""
    pid = blocked(dsn)
    query(dsn, "SELECT pg_terminate_backend(%s)", pid)
    wait_for(lambda: blocked(dsn) != pid, "the next connection waits")
