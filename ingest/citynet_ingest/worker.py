"""A worker: the MQTT session on the event loop, the committer on a thread of its own, an inbox between them.

The inbox is bounded by what the broker may have in flight to us. Whenever the committer is idle it takes all that has come
(up to the size of a commit), so a lone reading is committed at once and a flood is committed in large batches.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mqtt5
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from citynet import control, topics
from citynet.errors import CitynetError
from citynet.runtime import log
from citynet.runtime.failpoint import hit
from citynet.runtime.settings import BrokerSettings, DatabaseSettings
from citynet_ingest import metrics
from citynet_ingest.commit import Answers
from citynet_ingest.committer import Committer, StoppedError
from citynet_ingest.intake import Intake
from citynet_ingest.parcel import Parcel, size_of, weight_of
from citynet_ingest.session import Session
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.store.migrate import migrate
from citynet_ingest.watermarks import Watermarks
from citynet_rules.spec import RuleSet

_TICK_S = 1.0
_STOP_GRACE_S = 4.0
# A database that is cut off silently is noticed in half a minute instead of two hours.
_PROBES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
_log = log.get("worker")


Weighed = tuple[Parcel, int, int]  # a parcel, its readings, the bytes it takes


@dataclass(frozen=True, slots=True)
class Haul:
    """What one commit takes out of the inbox."""

    parcels: list[Parcel]
    readings: int
    weight: int


class Inbox:
    """Parcels between the event loop and the committer; `take` blocks, `put` never does (the broker bounds it)."""

    def __init__(self, readings_max: int, messages_max: int) -> None:
        self._parcels: deque[Weighed] = deque()
        self._arrived = threading.Condition()
        self._readings_max = readings_max
        self._messages_max = messages_max

    def put(self, parcels: list[Weighed]) -> None:
        with self._arrived:
            self._parcels.extend(parcels)
            self._arrived.notify()

    def take(self, timeout_s: float) -> Haul:
        """All that has come, up to one commit's size; nothing after `timeout_s` without anything."""
        taken: list[Parcel] = []
        readings = weight = 0
        with self._arrived:
            if not self._parcels:
                self._arrived.wait(timeout_s)
            waiting = self._parcels
            while waiting and len(taken) < self._messages_max and readings < self._readings_max:
                parcel, size, bytes_taken = waiting.popleft()
                taken.append(parcel)
                readings += size
                weight += bytes_taken
        return Haul(taken, readings, weight)

    def clear(self) -> None:
        """Drop what waits: the broker sends it again on the next connection."""
        with self._arrived:
            self._parcels.clear()

    def wake(self) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def __len__(self) -> int:
        return len(self._parcels)


class Worker:
    """One ingest worker, from `run` until `stop`."""

    def __init__(
        self, settings: IngestSettings, broker: BrokerSettings, database: DatabaseSettings, rules: RuleSet
    ) -> None:
        self._settings = settings
        self._database = database
        self._watermarks = Watermarks(int(settings.settle_s * 1e6), int(settings.settle_after_connect_s * 1e6))
        self._committer = Committer(self._connect, settings, rules, self._watermarks)
        self._intake = Intake(parse_shards(settings.shards), settings.direct_content_type)
        self._inbox = Inbox(settings.commit_readings_max, settings.commit_messages_max)
        self._session = Session(
            broker.endpoint(),
            f"citynet-ingest-{settings.worker}",
            filters_of(parse_shards(settings.shards)),
            self,
            optional=broker_filters_of(parse_shards(settings.shards)),
            receive_maximum=settings.receive_maximum,
            keep_alive_s=settings.keep_alive_s,
            session_expiry_s=settings.session_expiry_s,
            retry_s_max=settings.retry_s_max,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._arriving: list[Weighed] = []
        self._inflight_bytes = 0
        self._generation = 0
        self._reading_since = 0.0  # when the first message of this read of the socket was there

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        given = conninfo_to_dict(**self._database.conninfo())
        name = f"citynet-ingest-{self._settings.worker}"
        target = make_conninfo("", **{**_PROBES, **given, "connect_timeout": 5, "application_name": name})
        return psycopg.connect(target, autocommit=True)

    async def run(self) -> None:
        """Work until `stop`. Raises what makes going on impossible (schema, fencing, a shard taken)."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._committer.recover)
        except StoppedError as error:
            _log.info("stopped-waiting", reason=str(error))
            self._committer.close()
            return
        writer = threading.Thread(target=self._commit_loop, name="committer")
        writer.start()
        session = asyncio.create_task(self._session.run(), name="mqtt-session")
        session.add_done_callback(lambda _: self._stop.set())  # a worker without its session is none
        try:
            await self._stop.wait()
        finally:
            self._committer.stopping.set()
            self._inbox.clear()
            self._inbox.wake()
            await asyncio.to_thread(writer.join, _STOP_GRACE_S)
            await asyncio.sleep(0)  # the last answers were handed to this loop by the thread; let them out first
            self._session.close()
            await session
        if self._failure is not None:
            raise self._failure
        _log.info("stopped")

    def stop(self) -> None:
        """Finish the commit under way, answer it, and leave. Safe to call from a signal handler of the loop."""
        self._committer.stopping.set()
        self._stop.set()

    # --- on the event loop ---

    def connected(self, generation: int, session_present: bool) -> None:
        self._generation = generation
        self._inbox.clear()
        self._inflight_bytes = 0
        self._watermarks.connected(now_us())
        if not session_present and (generation > 1 or self._committer.has_history):
            _log.warning("session-lost", effect="messages of devices without a gateway may be missing")

    def lost(self) -> None:
        self._watermarks.lost()
        self._arriving = []
        self._inbox.clear()

    def received(self, packet: mqtt5.PublishPacket, generation: int) -> None:
        if not self._reading_since:
            self._reading_since = time.perf_counter()
        parcel = self._intake.take(packet, generation, now_us())
        if parcel is None:
            if packet.packet_id:
                self._session.acknowledge([packet.packet_id], generation)
            return
        weight = weight_of(parcel)
        self._inflight_bytes += weight  # QoS 0 as well: no receive maximum holds that back
        if self._inflight_bytes > self._settings.inflight_bytes_max:
            self._session.pause()
        self._arriving.append((parcel, size_of(parcel), weight))

    def paused(self) -> None:
        if self._arriving:
            self._inbox.put(self._arriving)
            metrics.MESSAGES.inc(len(self._arriving))
            metrics.DECODE_S.observe(time.perf_counter() - self._reading_since)
            self._arriving = []
        self._reading_since = 0.0

    def _answer(self, all_answers: list[Answers], committed: float) -> None:
        for answers in all_answers:
            self._session.acknowledge(answers.packet_ids, answers.generation)
            hit("ingest.after-puback")
            for (gateway, stream, epoch, ref), ack in answers.acks.items():
                key = f"{gateway}/{stream}/{epoch}/{ref}/{ack.why}"
                self._session.publish(key, topics.ack(gateway), control.encode(ack))
        metrics.ACK_S.observe(time.perf_counter() - committed)

    def _release(self, generation: int, weight: int) -> None:
        """Parcels of this weight, all of one connection, are done with."""
        if generation == self._generation:
            self._inflight_bytes -= weight
        if self._inflight_bytes <= self._settings.inflight_bytes_max // 2:
            self._session.resume()

    # --- on the committer's thread ---

    def _commit_loop(self) -> None:
        try:
            self._commit_until_stopped()
        except StoppedError as error:
            _log.info("stopped-waiting", reason=str(error))
        except BaseException as error:  # noqa: BLE001  (the supervisor of this thread: handed to run, which raises it)
            self._failure = error
        finally:
            self._committer.close()
            self._call(self._stop.set)

    def _commit_until_stopped(self) -> None:
        committer, last_tick = self._committer, 0.0
        while not committer.stopping.is_set():
            haul = self._inbox.take(_TICK_S)
            started = time.perf_counter()
            if haul.parcels:
                metrics.WAIT_S.observe(max(0, now_us() - haul.parcels[0].origin.received_us) / 1e6)
                answers = committer.process(haul.parcels)
                committed = time.perf_counter()
                metrics.COMMITS.inc()
                metrics.READINGS.inc(haul.readings)
                metrics.COMMIT_S.observe(committed - started)
                self._call(partial(self._answer, answers, committed))
                self._call(partial(self._release, haul.parcels[0].origin.generation, haul.weight))
            if started - last_tick > _TICK_S:
                last_tick = started
                committer.tick(now_us(), is_drained=not len(self._inbox))
                if redriven := committer.redrive(now_us()):
                    self._call(partial(self._answer, redriven, time.perf_counter()))
                metrics.DATABASE_UP.set(committer.is_database_up)
                metrics.INFLIGHT_BYTES.set(self._inflight_bytes)
        committer.flush()

    def _call(self, action: Callable[[], object]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)


def now_us() -> int:
    """The server's clock, µs since 1970."""
    return time.time_ns() // 1000


def filters_of(shards: range) -> list[mqtt5.TopicFilter]:
    """What a worker subscribes to: its shards' data, and every gateway's control messages (it answers its own only).

    Retained data is not sent again at a reconnect; retained status is.
    """
    once = mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
    every = ["+"] if len(shards) == 64 else [f"{shard:02d}" for shard in shards]
    data = [f"{topics.ROOT}/{kind}/{shard}/+" for kind in ("up", "dev") for shard in every]
    qos = mqtt5.QoS.AT_LEAST_ONCE
    return [
        *(mqtt5.TopicFilter(f, max_qos=qos, retain_handling=once, retain_as_published=False) for f in data),
        *(mqtt5.TopicFilter(f, max_qos=qos, retain_as_published=False) for f in (topics.HELLO_ALL, topics.STATUS_ALL)),
    ]


def broker_filters_of(shards: range) -> list[mqtt5.TopicFilter]:
    """What the broker says of itself; one worker of all listens, so that it is counted once."""
    if 0 not in shards:
        return []
    return [mqtt5.TopicFilter(topics.BROKER_DROPPED, max_qos=mqtt5.QoS.AT_MOST_ONCE)]


def prepare_database(database: DatabaseSettings, stop: threading.Event, retry_s: float = 1.0) -> None:
    """Migrate the schema, waiting for a database that is not there yet."""
    outage = log.OutageLog(_log, "database")
    while True:
        try:
            arguments = database.conninfo()
            server, applied = migrate(arguments.pop("conninfo"), connect_timeout=5, **arguments)
        except psycopg.OperationalError as error:
            outage.failed(error)
            if stop.wait(retry_s):
                raise CitynetError("stopped while the database is away") from None
        else:
            outage.worked()
            _log.info("database", version=server.version, timescale=server.timescale, migrated=applied)
            return
