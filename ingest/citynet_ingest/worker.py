"""A worker: an MQTT session a lane on the event loop, committer and writer on threads of their own, an inbox between them.

The inbox is bounded by what the broker may have in flight to us. Whenever nothing is being written all that has come is taken
(up to the size of a commit), so a lone reading is committed at once and a flood in large batches; of a flood the next commit
is planned meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from citynet import control, topics
from citynet.errors import ConfigError
from citynet.runtime import log
from citynet.runtime.failpoint import hit
from citynet.runtime.settings import BrokerSettings, DatabaseSettings
from citynet_ingest import metrics
from citynet_ingest.commit import Answers
from citynet_ingest.committer import Committer
from citynet_ingest.hindsight import Hindsight
from citynet_ingest.inbox import Haul, Inbox, Weighed
from citynet_ingest.inlet import Inlet, now_us
from citynet_ingest.lanes import lane_of, lanes_of
from citynet_ingest.ownership import StoppedError
from citynet_ingest.settings import IngestSettings, parse_shards
from citynet_ingest.store.migrate import migrate
from citynet_ingest.watermarks import Watermarks
from citynet_rules.spec import RuleSet

_TICK_S = 1.0
_STOP_GRACE_S = 4.0
_WATCH_S = 0.5
_GC_OBJECTS = 50_000
_SWITCH_S = 0.0005  # the writer needs the interpreter for microseconds, a hundred times a commit, while others decode
# A database that is cut off silently is noticed in half a minute instead of two hours.
_PROBES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
_log = log.get("worker")


class Worker:
    """One ingest worker, from `run` until `stop`."""

    def __init__(
        self, settings: IngestSettings, broker: BrokerSettings, database: DatabaseSettings, rules: RuleSet
    ) -> None:
        self._settings = settings
        self._database = database
        self._watermarks = Watermarks(int(settings.settle_s * 1e6), int(settings.settle_after_connect_s * 1e6))
        third = settings.inflight_bytes_max // 3  # one commit is written, one planned, one waits
        self._inbox = Inbox(settings.commit_readings_max, settings.commit_messages_max, third)
        self._committer = Committer(self._connect, settings, rules, self._watermarks, self._inbox.hold)
        self._hindsight = Hindsight(
            partial(self._connect, "hindsight"), lambda: self._committer.rules, settings.hindsight_s
        )
        lanes = lanes_of(parse_shards(settings.shards))
        self._inlets = {lane: Inlet(lane, self, settings, broker) for lane in lanes}
        self._outage = log.OutageLog(_log, "broker")
        self._forgotten: list[int] = []  # lanes whose session the broker did not know any more
        # Taken over by somebody; we may come back once the committer has checked.
        self._suspended: deque[Inlet] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._inflight_bytes = 0
        self._reloads: list[asyncio.Task[None]] = []

    def _connect(self, role: str = "ingest") -> psycopg.Connection[tuple[object, ...]]:
        given = conninfo_to_dict(**self._database.conninfo())
        name = f"citynet-{role}-{self._settings.worker} on {socket.gethostname()[:24]}, process {os.getpid()}"
        target = make_conninfo("", **{**_PROBES, **given, "connect_timeout": 5, "application_name": name})
        return psycopg.connect(target, autocommit=True)

    async def run(self) -> None:
        """Work until `stop`. Raises what makes going on impossible (schema, fencing, a shard taken)."""
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch(), name="watchdog")
        try:
            await self._run()
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        """Cut the database connection of work that is overdue."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._committer.watchdog.check():
                metrics.COMMITS_CUT.inc()
                _log.warning("commit-cut", effect="the database did not answer; the connection is made anew")

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._committer.recover)
        except StoppedError as error:
            _log.info("stopped-waiting", reason=str(error))
            self._committer.close()
            return
        _calm_collector()
        sys.setswitchinterval(_SWITCH_S)
        committer = threading.Thread(target=self._commit_loop, name="committer")
        committer.start()
        self._hindsight.start()
        sessions = [
            asyncio.create_task(inlet.session.run(), name=f"mqtt-session-{lane}")
            for lane, inlet in self._inlets.items()
        ]
        for session in sessions:
            session.add_done_callback(lambda _: self._stop.set())  # a lane without its session is none
        try:
            await self._stop.wait()
        finally:
            self._committer.stopping.set()
            self._hindsight.stop()
            self._inbox.clear()
            self._inbox.wake()
            await asyncio.to_thread(committer.join, 2 * _STOP_GRACE_S)
            await asyncio.sleep(0)  # the last answers were handed to this loop by the thread; let them out first
            for inlet in self._inlets.values():
                inlet.session.close()
            await asyncio.gather(*sessions)
        if self._failure is not None:
            raise self._failure
        _log.info("stopped")

    def stop(self) -> None:
        """Finish the commit under way, answer it, and leave. Safe to call from a signal handler of the loop."""
        self._committer.stopping.set()
        self._stop.set()
        if self._loop is not None:  # a database that does not answer must not keep us
            self._loop.call_later(_STOP_GRACE_S, partial(self._committer.watchdog.check, is_over=True))

    def reload(self, load: Callable[[], RuleSet]) -> None:
        """Read the rules anew and arm them at the next chance; with a mistake in them nothing changes but the reports. For a
        signal handler of the loop."""
        self._reloads = [task for task in self._reloads if not task.done()]
        self._reloads.append(asyncio.create_task(self._reload(load), name="reload"))

    async def _reload(self, load: Callable[[], RuleSet]) -> None:
        try:
            self._committer.offer.rules(await asyncio.to_thread(load))
        except ConfigError as error:
            self._committer.offer.problems(error.problems)

    # --- on the event loop ---

    def opened(self, inlet: Inlet, *, session_present: bool) -> None:
        self._inbox.clear(inlet.lane)
        self._inflight_bytes -= inlet.inflight_bytes
        inlet.inflight_bytes = 0
        self._resume()
        had_history = inlet.generation > 1 or inlet.lane in (self._committer.lanes_before or ())
        if not session_present and had_history:
            self._forgotten.append(inlet.lane)
        if all(other.is_connected for other in self._inlets.values()):
            self._all_connected()

    def _all_connected(self) -> None:
        self._watermarks.connected(now_us())
        self._outage.worked()
        _log.info("broker-connected", sessions=len(self._inlets))
        if self._forgotten:
            effect = "messages of devices without a gateway may be missing"
            metrics.SESSIONS_LOST.inc(len(self._forgotten))
            _log.warning("session-lost", lanes=self._forgotten, effect=effect)
            self._forgotten = []

    def closed(self, inlet: Inlet) -> None:
        self._watermarks.lost()
        self._inbox.clear(inlet.lane)

    def failed(self, error: str) -> None:
        self._outage.failed(error)

    def taken_over(self, inlet: Inlet) -> None:
        _log.warning("session-taken-over", lane=inlet.lane)
        self._suspended.append(inlet)

    def took(self, weight: int) -> None:
        self._inflight_bytes += weight
        if self._inflight_bytes > self._settings.inflight_bytes_max:
            for inlet in self._inlets.values():
                inlet.session.pause()

    def deliver(self, parcels: list[Weighed]) -> None:
        self._inbox.put(parcels)
        metrics.MESSAGES.inc(len(parcels))

    def _answer(self, all_answers: list[Answers], committed: float) -> None:
        for answers in all_answers:
            for (lane, generation), packet_ids in answers.pubacks.items():
                self._inlets[lane].session.acknowledge(packet_ids, generation)
            hit("ingest.after-puback")
            for (gateway, stream, epoch, ref), ack in answers.acks.items():
                key = f"{gateway}/{stream}/{epoch}/{ref}/{ack.why}"
                session = self._inlets[lane_of(gateway)].session
                session.publish(key, topics.ack(gateway), control.encode(ack))
            for reply in answers.replies:
                key = f"{reply.topic}/{reply.correlation.hex()}"
                body = control.encode(reply.outcome)
                session = self._inlets[reply.lane].session
                session.publish(key, reply.topic, body, correlation_data=reply.correlation)
        metrics.ACK_S.observe(time.perf_counter() - committed)

    def _release(self, weights: dict[tuple[int, int], int]) -> None:
        """Parcels of these weights, by lane and generation, are done with."""
        for (lane, generation), weight in weights.items():
            inlet = self._inlets[lane]
            if generation == inlet.generation:
                inlet.inflight_bytes -= weight
                self._inflight_bytes -= weight
        self._resume()

    def _resume(self) -> None:
        if self._inflight_bytes <= self._settings.inflight_bytes_max // 2:
            for inlet in self._inlets.values():
                inlet.session.resume()

    # --- on the committer's thread ---

    def _commit_loop(self) -> None:
        try:
            self._commit_until_stopped()
        except StoppedError as error:
            _log.info("stopped-waiting", reason=str(error))
        except BaseException as error:  # noqa: BLE001  (the supervisor of this thread: handed to run, which raises it)
            self._failure = error
        finally:
            self._call(self.stop)  # what is in flight has as long as at any stop
            self._committer.close()

    def _commit_until_stopped(self) -> None:
        committer, last_tick = self._committer, 0.0
        while not committer.stopping.is_set():
            haul = self._inbox.take(_TICK_S)
            started = time.perf_counter()
            if haul.parcels:
                metrics.WAIT_S.observe(max(0, now_us() - haul.parcels[0].origin.received_us) / 1e6)
                committer.take(haul.parcels, partial(self._committed, haul, started))
            else:
                committer.reap()
            if started - last_tick > _TICK_S:
                last_tick = started
                self._reclaim()
                committer.redrive(now_us(), self._tell)  # before the tick: that may leave a commit in flight
                committer.rearm()
                committer.tick(now_us(), is_drained=not len(self._inbox))
                metrics.DATABASE_UP.set(committer.is_database_up)
                metrics.INFLIGHT_BYTES.set(self._inflight_bytes)
        committer.flush()

    def _committed(self, haul: Haul, started: float, answers: list[Answers]) -> None:
        """A haul is durable. Called in the order of commits, on the writer's thread as well."""
        metrics.COMMITS.inc()
        metrics.READINGS.inc(haul.readings)
        metrics.COMMIT_S.observe(time.perf_counter() - started)
        self._tell(answers)
        self._call(partial(self._release, haul.weights))

    def _tell(self, answers: list[Answers]) -> None:
        self._call(partial(self._answer, answers, time.perf_counter()))

    def _reclaim(self) -> None:
        """Somebody took over sessions of ours. That is an intruder if the lanes are still ours, else it is their new owner."""
        known = len(self._suspended)  # who is taken over during the look is not looked for by it
        if known:
            self._committer.check()
        for _ in range(known):
            self._call(self._suspended.popleft().session.allow)

    def _call(self, action: Callable[[], object]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the worker has ended without us
                self._loop.call_soon_threadsafe(action)


def _calm_collector() -> None:
    """Let the cyclic garbage collector look seldom, and never at the registry and the rules' state.

    Messages on their way are many, live for milliseconds and hold no cycles: looking at them again and again was an eighth of
    a single message's cost. What makes cycles (connections, log entries of errors) is rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 20)


def prepare_database(database: DatabaseSettings, stop: threading.Event, retry_s: float = 1.0) -> None:
    """Migrate the schema, waiting for a database that is not there yet. StoppedError if `stop` is set meanwhile."""
    outage = log.OutageLog(_log, "database")
    while True:
        try:
            arguments = database.conninfo()
            server, applied = migrate(arguments.pop("conninfo"), connect_timeout=5, **arguments)
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:  # read-only: a failover
            outage.failed(error)
            if stop.wait(retry_s):
                raise StoppedError("stopped while the database is away") from None
        else:
            outage.worked()
            _log.info("database", version=server.version, timescale=server.timescale, migrated=applied)
            return
