"""`Driver` for HJ 212-2017 stations: a TCP server that answers a data message (9014) once it is safe in the spool.

Stations send what was not answered again. Four things tell such a repetition: the message waits for its sync right
now (it gets its answer with the first one); all it says was told before (`Told`, kept over a restart); the spool
knows its token (after a kill); and nothing else does, so a value that was corrected is a reading of its own.

Never answered: a wrong checksum, an unknown station, a wrong password, what is no frame. Answered once it is kept as
a raw note: a message that is in order and says nothing we understand; it would only come again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from zoneinfo import ZoneInfo

from citynet.errors import DecodeError
from citynet.runtime import failpoint, log
from citynet.wire import TELEMETRY
from citynet_gateway import metrics
from citynet_gateway.clock import is_boot_stamp
from citynet_gateway.drivers.allowance import Allowance
from citynet_gateway.drivers.hj212.calls import Calls
from citynet_gateway.drivers.hj212.connection import NONSENSE_MAX, Connection
from citynet_gateway.drivers.hj212.factors import Factor
from citynet_gateway.drivers.hj212.frame import Broken, Frame, encode
from citynet_gateway.drivers.hj212.listener import Listener
from citynet_gateway.drivers.hj212.message import Message, answer_to, parse, segment
from citynet_gateway.drivers.hj212.readings import (
    DATA_TIME,
    Statement,
    Station,
    factors_with,
    group_name,
    is_data,
    read,
    token_of,
)
from citynet_gateway.drivers.hj212.request import (
    CLOCK_WANTED,
    DATA_ANSWER,
    NOTICE_ANSWER,
    REQUEST_ANSWER,
    RESULT,
    Reply,
    Request,
    clock_set,
)
from citynet_gateway.drivers.hj212.settings import Hj212Settings
from citynet_gateway.drivers.hj212.told import Told
from citynet_gateway.drivers.loop import LoopThread
from citynet_gateway.drivers.port import Context, Offer, Resumed
from citynet_gateway.intake import Part, raw_note, sort_values
from citynet_gateway.spool.files import replace_durably
from citynet_gateway.spool.segment import TOKEN_BYTES

WAITING_MAX = 256  # messages of all stations that wait for their sync; then nobody is read
TICK_S = 1.0
SAVE_S = 60.0
STOP_S = 0.6
TOLD_BYTES_MAX = 8 << 20
SPLIT_GROUPS_MAX = 64  # DataTimes that later packets of a station's messages may refer to

logger = log.get(__name__)


@dataclass(slots=True)
class _Waiting:
    """A message whose sync is awaited: what will be known of it then, and who gets which answer."""

    mn: str = ""
    group: bytes = b""
    names: list[bytes] = field(default_factory=list)
    answers: list[tuple[Connection, bytes]] = field(default_factory=list)


class Hj212:
    """The driver. Everything but `start`, `answer`, `trouble` and `request` happens on its event loop."""

    name = "hj212"

    def __init__(self, context: Context, settings: Hj212Settings) -> None:
        self._context = context
        self._settings = settings
        factors = factors_with(
            {item.code: Factor(item.metric, item.unit, item.total_unit, item.scale) for item in settings.factors}
        )
        self._stations = {
            item.mn: Station(
                item.mn, item.device, item.password, item.checksum, ZoneInfo(item.zone or settings.zone), factors
            )
            for item in settings.stations
        }
        self._told = Told(self._stations)
        self._told_path = context.settings.data_dir / "hj212-told"
        self._saved_s = context.monotonic_s()
        self._put: Callable[[Offer | Resumed], None] = _nowhere
        self._loop = LoopThread("hj212")
        self._listener = Listener(self, settings, context.monotonic_s)
        self._calls = Calls(context.clock_us)
        self._allowance = Allowance()
        self._waiting: dict[bytes, _Waiting] = {}
        self._split_times: dict[tuple[str, str, int], str] = {}
        self._troubles: dict[str, str] = {}  # by device, until its next message that is in order
        self._strangers: Counter[str] = Counter()
        self._trouble = ""

    # --- the port; called from the service's thread ---

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Listen, now or as soon as the address is free."""
        self._put = put
        self._load_told()
        self._loop.start()
        self._loop.run(self._listener.open())
        self._loop.call(self._tick)

    def answer(self, offers: Sequence[Offer]) -> None:
        self._loop.call(self._safe, [offer.receipt for offer in offers])

    def trouble(self) -> str:
        return self._trouble

    def pause(self) -> None:
        self._loop.call(self._listener.pause)

    def stop(self) -> None:
        self._loop.call(self._leave)
        self._loop.stop(STOP_S)

    def request(self, device: str, request: Request) -> Future[Reply]:
        """Ask a station something (see `request.py`); from any thread but the driver's own."""
        return self._loop.run(self._calls.ask(device, request))

    def zone_of(self, device: str) -> ZoneInfo | None:
        """The time zone of a station, None if there is none of this name."""
        found = next((item.zone for item in self._stations.values() if item.device == device), None)
        return found if isinstance(found, ZoneInfo) else None

    # --- connections ---

    @property
    def full(self) -> bool:
        return len(self._waiting) >= WAITING_MAX

    def opened(self, connection: Connection) -> None:
        self._listener.opened(connection)

    def closed(self, connection: Connection) -> None:
        self._listener.closed(connection)
        self._calls.forget(connection)

    def took(self, connection: Connection, piece: Frame | Broken) -> None:
        """A piece of a connection's stream."""
        if isinstance(piece, Broken):
            self._nonsense(connection, piece.reason, piece.data, "what came is no frame")
            return
        try:
            message = parse(piece.data)
        except DecodeError as error:
            reason = "malformed" if piece.holds("hj212") or piece.holds("modbus-crc") else "checksum"
            self._nonsense(connection, reason, piece.raw(), str(error))
            return
        station = self._stations.get(message.mn)
        if station is None:
            self._stranger(connection, message, piece)
        elif not piece.holds(station.checksum):
            self._wrong_checksum(connection, station, piece)
        elif station.password is not None and message.pw != station.password:
            self._troubles[station.device] = "wrong password (PW)"
            self._nonsense(connection, "password", piece.raw(), f"station {station.device}: wrong PW", station)
        else:
            self._identified(connection, station)
            self._dispatch(connection, station, message, piece)

    def _identified(self, connection: Connection, station: Station) -> None:
        if connection.station is not station:
            logger.info("hj212-station", device=station.device, peer=connection.peer)
        connection.station = station
        connection.nonsense = 0
        self._calls.reached(station, connection)
        self._troubles.pop(station.device, None)

    # --- messages that are in order ---

    def _dispatch(self, connection: Connection, station: Station, message: Message, frame: Frame) -> None:
        if self._calls.take(station, message):
            metrics.HJ212_FRAMES.labels("answer").inc()
            if message.wants_answer and message.cn not in (REQUEST_ANSWER, RESULT):
                connection.send(_answer(station, message, DATA_ANSWER))
        elif message.cn == CLOCK_WANTED:
            metrics.HJ212_FRAMES.labels("notice").inc()
            connection.send(_answer(station, message, NOTICE_ANSWER))
            self._give_time(station)
        elif message.cn.startswith("90"):
            metrics.HJ212_FRAMES.labels("answer").inc()  # to a request that was given up, or whose process is gone
        elif is_data(message):
            self._data(connection, station, message, frame)
        else:
            metrics.HJ212_FRAMES.labels("other").inc()
            self._keep(connection, station, message, frame, f"unknown-command at CN: {message.cn[:20]!r}")

    def _data(self, connection: Connection, station: Station, message: Message, frame: Frame) -> None:
        metrics.HJ212_FRAMES.labels("data").inc()
        data_time = self._data_time(message)
        try:
            statements = read(message, station, data_time)
        except DecodeError as error:
            self._keep(connection, station, message, frame, str(error))
            return
        group = group_name(message, data_time)
        fresh = self._told.fresh(station.mn, group, statements)
        if len(fresh) < len(statements):
            metrics.DUPLICATES.inc()
        if not fresh:
            self._answer_now(connection, station, message)
            return
        readings = [reading for statement in fresh for reading in statement.readings]
        rejects = [reject for statement in fresh for reject in statement.rejects]
        if not readings and not rejects:  # a factor of flags only
            self._told.add(station.mn, group, [statement.name for statement in fresh])
            self._answer_now(connection, station, message)
            return
        parts, rejected = sort_values(_topic(station.mn), frame.raw(), readings, rejects, self._context.sorter)
        self._offer(connection, station, message, token_of(fresh), parts, rejected, group, fresh)

    def _data_time(self, message: Message) -> str:
        """A packet's DataTime; a later packet of a divided message may leave it to the first one."""
        own = message.value(DATA_TIME)
        key = (message.mn, message.cn, message.pnum)
        if not message.pnum:
            return own
        if own:
            self._split_times.pop(key, None)
            self._split_times[key] = own
            while len(self._split_times) > SPLIT_GROUPS_MAX:
                del self._split_times[next(iter(self._split_times))]
        return own or self._split_times.get(key, "")

    def _keep(self, connection: Connection, station: Station, message: Message, frame: Frame, reason: str) -> None:
        """A message in order that cannot be understood: safe as a raw note, then answered."""
        note = raw_note(_topic(station.mn), frame.raw(), reason)
        token = blake2b(frame.data, digest_size=TOKEN_BYTES).digest()
        self._offer(connection, station, message, token, [Part(TELEMETRY, (), (note,))], 1, b"", [])

    def _offer(
        self,
        connection: Connection,
        station: Station,
        message: Message,
        token: bytes,
        parts: list[Part],
        rejected: int,
        group: bytes,
        statements: Sequence[Statement],
    ) -> None:
        known = self._waiting.get(token)
        if known is None:
            waiting = self._waiting[token] = _Waiting(station.mn, group, [item.name for item in statements])
        else:
            waiting = known
            metrics.DUPLICATES.inc()
        if message.wants_answer:
            waiting.answers.append((connection, _answer(station, message, DATA_ANSWER)))
            connection.unanswered += 1
        if known is None:
            self._put(Offer(self, token, tuple(parts), token, repeated=True, rejected=rejected))

    def _answer_now(self, connection: Connection, station: Station, message: Message) -> None:
        if message.wants_answer:
            connection.send(_answer(station, message, DATA_ANSWER))

    def _safe(self, tokens: Sequence[object]) -> None:
        """These are synced: remember what they said, answer."""
        was_full = self.full
        for token in tokens:
            waiting = self._waiting.pop(token, None) if isinstance(token, bytes) else None
            if waiting is None:
                continue
            if waiting.group:
                self._told.add(waiting.mn, waiting.group, waiting.names)
            for connection, answer in waiting.answers:
                connection.unanswered -= 1
                connection.send(answer)
                failpoint.hit("gateway.after-answer")
                self._loop.loop.call_soon(connection.work)
        if was_full and not self.full:
            for connection in self._listener.connections:
                self._loop.loop.call_soon(connection.work)

    def _give_time(self, station: Station) -> None:
        now_us = self._context.stamp_us()
        if self._settings.set_clocks and not is_boot_stamp(now_us):  # a guess is nobody's example
            self._calls.begin(station.device, clock_set(now_us, station.zone))

    # --- what is not in order ---

    def _stranger(self, connection: Connection, message: Message, frame: Frame) -> None:
        right = frame.holds("hj212") or frame.holds("modbus-crc")
        if right and len(self._strangers) < WAITING_MAX:
            if not self._strangers[message.mn]:
                logger.warning("hj212-unknown-station", mn=message.mn[:40], peer=connection.peer)
            self._strangers[message.mn] += 1
        reason = "station" if right else "checksum"
        self._nonsense(connection, reason, frame.raw(), f"no station with MN {message.mn[:40]!r} is configured")

    def _wrong_checksum(self, connection: Connection, station: Station, frame: Frame) -> None:
        metrics.HJ212_CHECKSUMS.labels(station.device).inc()
        other = "modbus-crc" if station.checksum == "hj212" else "hj212"
        hint = f'; it would be right with checksum = "{other}"' if frame.holds(other) else ""
        if station.device not in self._troubles:
            logger.warning("hj212-wrong-checksum", device=station.device, hint=hint)
        self._troubles[station.device] = f"wrong checksum{hint}"
        text = f"station {station.device}: checksum {frame.checksum[:8]!r}{hint}"
        self._nonsense(connection, "checksum", frame.raw(), text, station)

    def _nonsense(
        self, connection: Connection, reason: str, data: bytes, text: str, station: Station | None = None
    ) -> None:
        """Not answered. Counted, and kept as a raw note as far as its source's allowance goes."""
        metrics.HJ212_FRAMES.labels(reason).inc()
        connection.nonsense += 1
        if connection.nonsense > NONSENSE_MAX:
            logger.warning("hj212-speaks-something-else", peer=connection.peer)
            connection.abort()
            return
        if self.full or not self._allowance.take(connection.peer, self._context.monotonic_s()):
            metrics.NOTES_SUPPRESSED.labels(self.name).inc()
            return
        token = blake2b(data, digest_size=TOKEN_BYTES).digest()
        if token not in self._waiting:
            self._waiting[token] = _Waiting()
            topic = _topic(station.mn if station else connection.peer)
            part = Part(TELEMETRY, (), (raw_note(topic, data, f"hj212-{reason} at frame: {text}"),))
            self._put(Offer(self, token, (part,), token, repeated=True, rejected=1))

    # --- time ---

    def _tick(self) -> None:
        self._loop.loop.call_later(TICK_S, self._tick)
        self._listener.tick()
        troubles = [f"{device}: {text}" for device, text in sorted(self._troubles.items())]
        self._trouble = "; ".join([self._listener.trouble, *troubles] if self._listener.trouble else troubles)
        now_s = self._context.monotonic_s()
        if self._told.changed and now_s - self._saved_s >= SAVE_S:
            self._save_told()

    def _leave(self) -> None:
        self._listener.close()
        if self._told.changed:
            self._save_told()

    def _load_told(self) -> None:
        try:
            saved = self._context.files.read(self._told_path, 0, TOLD_BYTES_MAX)
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("hj212-told-unreadable", error=str(error))
            return
        if not self._told.load(saved):
            logger.warning("hj212-told-unreadable", error="not what was written")

    def _save_told(self) -> None:
        self._saved_s = self._context.monotonic_s()
        try:
            replace_durably(self._context.files, self._told_path, self._told.dump())
        except OSError as error:  # the spool's own trouble tells of the storage; this memory is a convenience
            logger.warning("hj212-told-unwritable", error=str(error))


def _answer(station: Station, message: Message, cn: str) -> bytes:
    return encode(segment(answer_to(message, cn)), station.checksum)


def _topic(source: str) -> str:
    return f"hj212/{source}"


def _nowhere(_offer: Offer | Resumed) -> None:
    """Before `start` nobody listens, and nothing comes."""
