"""The gateway's service: one thread owns spool and window; drivers and uplink hand it events through one queue.

    driver --Offer--> [queue] --> append --> sync --> answer
    uplink --Acked--> [queue] --> window --> watermark, trim;  window --Want--> read --> publish

Bounds: the queue holds at most `QUEUE_MAX` events; a driver waits for room (so its broker does), an
acknowledgement beyond it is dropped, because the next one says the same and more. Offers that the spool
refuses are parked, unanswered, and bounded by the driver's own bound of unanswered messages.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import msgspec

from citynet import __version__, wire
from citynet.control import Status, Stream
from citynet.reading import Reading
from citynet.runtime import failpoint, log
from citynet_gateway import metrics
from citynet_gateway.drivers.port import Driver, Offer
from citynet_gateway.edge import Edge
from citynet_gateway.inbox import Event, Inbox
from citynet_gateway.intake import Part
from citynet_gateway.pacing import Pacer
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool import Spool, SpoolFull
from citynet_gateway.spool.store import EPOCH_BITS
from citynet_gateway.systemd import Notifier
from citynet_gateway.uplink import Acked, Connected, Delivered, Disconnected, Uplink
from citynet_gateway.window import STREAM_ORDER, Want, Window

TURN_S_MAX = 0.25  # also the longest time until a signal is noticed
PARKED_MAX = 128  # messages of sources that cannot wait; the others are bounded by what they leave unanswered
UNPARK_S = 0.1  # between two attempts at what the spool refused
RETRY_S_FIRST = 0.2
RETRY_S_MAX = 5.0
TROUBLE_CHARS_MAX = 200

logger = log.get(__name__)


def new_epoch() -> int:
    """A random epoch: unlike any before it, whatever this machine remembers or forgot."""
    return secrets.randbelow((1 << EPOCH_BITS) - 1) + 1


@dataclass(slots=True)
class _Unanswered:
    """An offer that is in the spool, and up to which number each stream must be synced before it may be answered."""

    offer: Offer
    needs: dict[Stream, int]


class Gateway:
    """A gateway that runs until `stop` or `restart` is called. Its parts are given, started and stopped here.

    Args:
        monotonic_s: never goes back. Everything else that has to do with time is the edge's.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        spool: Spool,
        drivers: Sequence[Driver],
        inbox: Inbox,
        uplink: Uplink,
        random: Random,
        edge: Edge,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._drivers = drivers
        self._inbox = inbox
        self._uplink = uplink
        self._random = random
        self._edge = edge
        self._monotonic_s = monotonic_s
        self._window = Window(settings.limits(), random)
        self._pacer = Pacer(settings.uplink_bytes_s_max)
        self._stopping = False
        self.wants_restart = False
        self._connected = False
        self._unanswered: deque[_Unanswered] = deque()
        self._parked: deque[_Unanswered] = deque()
        self._refusing: set[Stream] = set()  # streams that have something parked
        self._unpark_at_s = 0.0
        self._rejected = 0
        self._started_s = monotonic_s()
        self._telemetry_since_s: float | None = None  # since when telemetry waits for its sync
        self._status_at_s = self._heartbeat_at_s = self._started_s
        self._retry_at_s = 0.0
        self._retry_s = RETRY_S_FIRST
        self._sent_at_s = 0.0
        self._systemd = Notifier()
        self._storage = log.OutageLog(logger, "spool-storage")
        self._full = log.OutageLog(logger, "spool-room")

    def stop(self) -> None:
        """Ask `run` to finish; safe in a signal handler."""
        self._stopping = True

    def restart(self) -> None:
        """Ask `run` to finish, and whoever called it to begin anew with other settings; from any thread."""
        self.wants_restart = True
        self._stopping = True

    def run(self) -> None:
        """Work until `stop`; then stop taking, sync, answer, say goodbye. Returns within 5 s of `stop`."""
        self._edge.start(self._inbox.put_own)
        self._uplink.start(self._status(online=False))
        for driver in self._drivers:
            driver.start(self._inbox.put_field)
        logger.info("gateway-started", id=self._settings.id, epoch=self._spool.epoch)
        self._systemd.ready(f"gateway {self._settings.id}")
        while not self._stopping:
            self.turn(self._idle_s())
            self._systemd.alive(self._monotonic_s())
        if not self.wants_restart:  # the next run is the same process to systemd
            self._systemd.stopping()
        self._finish()

    def turn(self, wait_s: float) -> None:
        """One round: take events, accept, sync what is due, answer, send."""
        for event in self._inbox.take(wait_s):
            self._handle(event)
        now_s = self._monotonic_s()
        self._edge.turn(now_s)
        self._heartbeat(now_s)
        self._unpark(now_s)
        self._sync_due(now_s)
        if self._unanswered and self._is_safe(self._unanswered[0]):
            self._answer()  # what needed no sync of its own: held back, or there before
        self._send(now_s)
        self._tell_status(now_s)

    # --- events
    # ------------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, Offer):
            self._accept(_Unanswered(event, {}))
        elif isinstance(event, Acked):
            self._take_ack(event)
        elif isinstance(event, Connected):
            self._connected = True
            self._edge.link(is_up=True)
            self._status_at_s = self._monotonic_s()
            self._tell_status(self._status_at_s)
            self._say_hello(connected=True)
        elif isinstance(event, Disconnected):
            self._connected = False
            self._edge.link(is_up=False)
            self._window.part()
            self._pacer.part()
        elif isinstance(event, Delivered):
            self._pacer.delivered(event.ident, event.at_s)
        else:
            # What is parked comes again; the parts of it that are in the spool are recognised by their token. What has no
            # token (QoS 0) does not come again.
            self._parked = deque(
                item for item in self._parked if item.offer.driver is not event.driver or not item.offer.token
            )

    def _accept(self, item: _Unanswered) -> None:
        """Put an offer's parts into the spool. A part that is refused is parked, and all later ones of its stream behind it.

        What the sense holds back leaves nothing to sync; it is answered after what it was compared with.
        """
        offer, refused, now_s = item.offer, [], self._monotonic_s()
        for part in offer.parts:
            if offer.repeated and self._spool.knows(part.stream, offer.token):
                metrics.DUPLICATES.inc()
                item.needs[part.stream] = self._spool.appended(part.stream)
                continue
            if part.stream in self._refusing and offer.waits:
                refused.append(part)
                continue
            judged = self._edge.judge(part, now_s)
            try:
                if judged.kept or part.notes:
                    self._spool.append(part.stream, judged.kept, part.notes, offer.token, waits=offer.waits)
            except SpoolFull as error:
                if not offer.waits and len(self._parked) >= PARKED_MAX:
                    metrics.REFUSED.inc()
                    continue
                self._full.failed(error)
                self._refusing.add(part.stream)
                refused.append(part)
                continue
            self._edge.keep(judged, part.stream)
            item.needs[part.stream] = self._spool.appended(part.stream)
        if refused:
            item.offer = replace(offer, parts=tuple(refused))
            self._parked.append(item)
            return
        self._rejected += offer.rejected
        metrics.REJECTED.inc(offer.rejected)
        self._unanswered.append(item)

    def _unpark(self, now_s: float) -> None:
        """Try what was refused once more, in the old order."""
        if self._parked and now_s >= self._unpark_at_s:
            self._unpark_at_s = now_s + UNPARK_S
            parked, self._parked = self._parked, deque()
            self._refusing.clear()
            for item in parked:
                self._accept(item)
        if not self._parked:
            self._refusing.clear()
            self._full.worked()
        metrics.PARKED.set(len(self._parked))

    def _heartbeat(self, now_s: float) -> None:
        """The canary: a reading of our own, so that a silent gateway is told from silent sensors.

        It goes with the alarms, which no backlog delays: a gateway that drains an outage is not silent.
        """
        if not self._settings.heartbeat_s or now_s < self._heartbeat_at_s or self._parked:
            return
        self._heartbeat_at_s = now_s + self._settings.heartbeat_s
        uptime_s = round(now_s - self._started_s, 3)
        uptime = Reading(self._settings.id, "gateway_uptime_s", self._edge.clock.stamp_us(), uptime_s)
        self._accept(_Unanswered(Offer(None, None, (Part(wire.ALARM, (uptime,)),)), {}))

    # --- sync and answer
    # ---------------------------------------------------------------------------------------------

    def _sync_due(self, now_s: float) -> None:
        """Alarms at once; telemetry when the oldest has waited `sync_interval_ms` or enough has gathered.

        Every sync costs pages of the file system besides its bytes, so it waits as long as it may; but not until
        sources have left so much unanswered that they stop.
        """
        if now_s < self._retry_at_s:
            return
        waiting = self._spool.pending(wire.TELEMETRY)
        if waiting and self._telemetry_since_s is None:
            self._telemetry_since_s = now_s
        due = (
            self._telemetry_since_s is not None
            and (now_s - self._telemetry_since_s) * 1000 >= self._settings.sync_interval_ms
        )
        streams: list[Stream] = [wire.ALARM] if self._spool.pending(wire.ALARM) else []
        enough = self._spool.pending_bytes(wire.TELEMETRY) >= self._settings.sync_bytes_max
        stalls = len(self._unanswered) >= max(1, self._settings.receive_max // 2)
        if waiting and (due or enough or stalls):
            streams.append(wire.TELEMETRY)
        if streams:
            self._sync(streams, now_s)

    def _sync(self, streams: Sequence[Stream], now_s: float) -> None:
        try:
            for stream in streams:
                pending = self._spool.pending(stream)
                with metrics.SYNC_S.labels(stream).time():
                    self._spool.sync(stream)
                metrics.ACCEPTED.labels(stream).inc(pending)
                if stream == wire.TELEMETRY:
                    self._telemetry_since_s = None
        except OSError as error:
            # Nothing of it was answered, all of it is still pending.
            self._storage_failed(error, now_s)
        else:
            self._storage_worked()
        self._answer()

    def _is_safe(self, item: _Unanswered) -> bool:
        return all(self._spool.synced(stream) >= seq for stream, seq in item.needs.items())

    def _answer(self) -> None:
        ready: dict[Driver, list[Offer]] = {}
        waiting: deque[_Unanswered] = deque()
        for item in self._unanswered:
            if not self._is_safe(item):
                waiting.append(item)
            elif item.offer.driver is not None:
                ready.setdefault(item.offer.driver, []).append(item.offer)
        self._unanswered = waiting
        for driver, offers in ready.items():
            driver.answer(offers)

    def _storage_failed(self, error: OSError, now_s: float) -> None:
        metrics.SYNC_FAILURES.inc()
        self._storage.failed(error)
        if error.errno == errno.ENOSPC and any(not item.offer.waits for item in self._unanswered):
            self._spool.give_way()
        self._retry_at_s = now_s + self._retry_s * self._random.uniform(0.75, 1.25)
        self._retry_s = min(RETRY_S_MAX, 2 * self._retry_s)

    def _storage_worked(self) -> None:
        self._storage.worked()
        self._retry_s = RETRY_S_FIRST

    # --- uplink
    # ------------------------------------------------------------------------------------------------------

    def _say_hello(self, *, connected: bool) -> None:
        spans = {stream: self._spool.spans(stream) for stream in STREAM_ORDER}
        ref = f"{self._random.getrandbits(64):016x}"
        hello = self._window.hello(ref, spans, self._monotonic_s(), connected=connected)
        self._uplink.send_hello(hello)
        metrics.HELLOS.inc()

    def _take_ack(self, event: Acked) -> None:
        ack = event.ack
        verdict = self._window.take(ack, self._spool.spans(ack.st), self._monotonic_s())
        metrics.ACKS.labels(verdict.outcome).inc()
        if verdict.acked is None:
            return
        failpoint.hit("gateway.after-ack")
        before = next(span.acked for span in self._spool.spans(ack.st) if span.epoch == ack.ep)
        metrics.ACKED.labels(ack.st).inc(verdict.acked - before)
        try:
            self._spool.ack(ack.st, ack.ep, verdict.acked)
        except OSError as error:
            self._storage_failed(error, self._monotonic_s())  # trimmed with a later acknowledgement

    def _send(self, now_s: float) -> None:
        if not self._connected:
            return
        spans = {stream: self._spool.spans(stream) for stream in STREAM_ORDER}
        for stream in STREAM_ORDER:
            while want := self._window.stream(stream).want(spans[stream]):
                if self._may_grow(stream, want, now_s) or not self._send_batch(stream, want, now_s):
                    break
        due_s = self._window.hello_due_at_s(spans)
        if due_s is not None and now_s >= due_s:
            self._say_hello(connected=False)

    def _may_grow(self, stream: Stream, want: Want, now_s: float) -> bool:
        """Whether a small telemetry batch should wait for more, because another one is on its way anyway."""
        small = want.last - want.seq + 1 < self._settings.batch_readings_max
        young = (now_s - self._sent_at_s) * 1000 < self._settings.batch_age_ms_max
        return stream == wire.TELEMETRY and small and young and not want.idle

    def _send_batch(self, stream: Stream, want: Want, now_s: float) -> bool:
        held = self._edge.holds(stream, want.epoch) or not self._pacer.may_send(stream, now_s)
        if held or now_s < self._retry_at_s:
            return False
        try:
            run = self._spool.read(
                stream, want.epoch, want.seq, self._settings.batch_readings_max, self._settings.batch_bytes_max
            )
        except OSError as error:
            self._storage_failed(error, now_s)
            return False
        if run is None:
            return False
        header = wire.Header(self._settings.id, stream, run.epoch, run.seq0, run.count, want.last)
        payload = wire.encode(header, *self._edge.dated(run))
        ident = self._uplink.send_batch(payload)
        if ident is None:
            return False
        self._pacer.sent(ident, len(payload), now_s)
        self._window.stream(stream).sent(run.last, now_s)
        self._sent_at_s = now_s
        metrics.BATCHES.labels(stream).inc()
        return True

    # --- status
    # ------------------------------------------------------------------------------------------------------

    def _status(self, *, online: bool) -> Status:
        return Status(
            online=online,
            version=__version__,
            at_us=self._edge.clock.utc_us(),
            clock="synced" if self._edge.clock.clock.is_known else "unsynced",
            full=bool(self._parked) or self._storage.failing,
            spool_bytes=self._spool.used_bytes,
            spool_bytes_max=self._settings.spool_bytes_max,
            rejected=self._rejected,
            claims=self._spool.claims(),
            drivers=self._troubles(),
        )

    def _troubles(self) -> dict[str, str]:
        troubles = {driver.name: driver.trouble() for driver in self._drivers} | self._edge.troubles()
        if uplink := self._uplink.trouble():
            troubles["uplink"] = uplink
        return {name: text[:TROUBLE_CHARS_MAX] for name, text in troubles.items()}

    def _tell_status(self, now_s: float) -> None:
        if now_s < self._status_at_s:
            return
        self._status_at_s = now_s + self._settings.status_interval_s
        for stream in STREAM_ORDER:
            left = sum(span.last - span.acked for span in self._spool.spans(stream))
            metrics.SPOOL_RECORDS.labels(stream).set(left)
        metrics.SPOOL_BYTES.set(self._spool.used_bytes)
        metrics.LOST.set(self._spool.lost_records)
        self._give_up_old(now_s)
        if not self._connected:
            return
        self._save(now_s)
        status = self._status(online=True)
        self._uplink.set_will(msgspec.structs.replace(status, online=False))
        self._uplink.send_status(status)

    def _give_up_old(self, now_s: float) -> None:
        try:
            self._spool.expire()
        except OSError as error:
            self._storage_failed(error, now_s)
        for reason, count in self._spool.given_up.items():
            metrics.GIVEN_UP.labels(reason).set(count)

    def _save(self, now_s: float) -> None:
        """What the status is about to claim must be known after a power cut: then a loss below us shows."""
        try:
            self._spool.save()
        except OSError as error:
            self._storage_failed(error, now_s)

    # --- time
    # --------------------------------------------------------------------------------------------------------

    def _idle_s(self) -> float:
        """How long the next turn may wait for an event."""
        now_s = self._monotonic_s()
        due = [self._status_at_s, now_s + TURN_S_MAX]
        if self._telemetry_since_s is not None:
            due.append(max(self._retry_at_s, self._telemetry_since_s + self._settings.sync_interval_ms / 1000))
        if self._settings.heartbeat_s:
            due.append(self._heartbeat_at_s)
        if (free_at_s := self._pacer.free_at_s(now_s)) is not None:
            due.append(free_at_s)
        return max(0.001, min(due) - now_s)

    def _finish(self) -> None:
        for driver in self._drivers:
            driver.pause()
        self._inbox.closed = True
        self._edge.stop()
        for offer in self._inbox.take_own(self._edge.journal):
            self._accept(_Unanswered(offer, {}))
        now_s = self._monotonic_s()
        self._sync([stream for stream in STREAM_ORDER if self._spool.pending(stream)], now_s)
        for driver in self._drivers:
            driver.stop()
        self._save(now_s)
        self._uplink.stop(self._status(online=False))
        self._spool.close()
        logger.info("gateway-stopped", id=self._settings.id)
