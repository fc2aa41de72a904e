"""From a field message to records, pure: decode it, sort its values into streams, keep what cannot be understood.

Nothing is dropped: a value that is no reading, a message that cannot be decoded and a topic that names no
device each become a raw note, which travels like a reading and ends in the server's dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import blake2b

from citynet import formats
from citynet.control import Stream
from citynet.errors import DecodeError
from citynet.ids import check_id
from citynet.notes import Note, RawNote
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.spool.segment import TOKEN_BYTES

RAW_BYTES_MAX = 64 * 1024
RAW_TOPIC_CHARS_MAX = 512
RAW_REASON_CHARS_MAX = 512
REJECTS_MAX = 256  # raw notes of one message; what is beyond shares the last one
_KNOWN_METRICS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """What one message gives to one stream."""

    stream: Stream
    readings: tuple[Reading, ...]
    notes: tuple[Note, ...] = ()


@dataclass(slots=True)
class Sorter:
    """Which stream a metric belongs to.

    `patterns` (shell style) choose the alarm stream. Remembers its answers.
    """

    patterns: Sequence[str]
    _known: dict[str, bool] = field(default_factory=dict)

    def is_alarm(self, metric: str) -> bool:
        found = self._known.get(metric)
        if found is None:
            if len(self._known) >= _KNOWN_METRICS_MAX:
                self._known.clear()
            found = self._known[metric] = any(fnmatchcase(metric, pattern) for pattern in self.patterns)
        return found


def interpret(
    topic: str, payload: bytes, content_type: str, *, folder: str, sorter: Sorter, accept_us: int
) -> tuple[list[Part], int]:
    """The parts of a field message (at least one, alarms first) and how many raw notes are among them.

    Args:
        folder: the topic without its last level, which must be the device: ``field/gw-1``.
        accept_us: µs since the Unix epoch; stands in where the message has no time.
    """
    try:
        before, _, device = topic.rpartition("/")
        if before != folder:
            raise DecodeError("unknown-topic", "topic", f"{topic[:120]!r} is not {folder}/<device>")
        decoded = formats.decode(content_type, payload, check_id(device, "topic"), accept_us)
    except DecodeError as error:
        return [Part(TELEMETRY, (), (raw_note(topic, payload, str(error)),))], 1
    return sort_values(topic, payload, decoded.readings, decoded.rejects, sorter)


def sort_values(
    topic: str, payload: bytes, readings: Sequence[Reading], rejects: Sequence[formats.Reject], sorter: Sorter
) -> tuple[list[Part], int]:
    """The parts of a message that was understood, and how many raw notes are among them.

    Args:
        topic: where the message came from, for its notes. `payload`: the message itself.
    """
    alarms = tuple(item for item in readings if sorter.is_alarm(item.metric))
    others = tuple(item for item in readings if not sorter.is_alarm(item.metric)) if alarms else tuple(readings)
    notes = _raw_rejects(topic, payload, rejects)
    parts = [Part(ALARM, alarms)] if alarms else []
    if others or notes or not parts:
        if not others and not notes:
            notes = (raw_note(topic, payload, "empty at payload: no values"),)
        parts.append(Part(TELEMETRY, others, notes))
    return parts, len(notes)


def source_token(topic: str, packet_id: int, payload: bytes, salt: bytes) -> bytes:
    """Names one delivery of one message in one broker session (`salt`), so that its redelivery is recognised."""
    digest = blake2b(payload, digest_size=TOKEN_BYTES, key=salt[:64])
    digest.update(b"\0%d\0" % packet_id)
    digest.update(topic.encode("utf-8", "surrogateescape"))
    return digest.digest()


def _raw_rejects(topic: str, payload: bytes, rejects: Sequence[formats.Reject]) -> tuple[RawNote, ...]:
    """One note a value: the first carries the whole message, the others only the value, so that a note stays affordable."""
    notes = [
        raw_note(
            topic,
            payload if position == 0 else reject.detail.encode(),
            f"{reject.reason} at {reject.where}: {reject.detail}",
        )
        for position, reject in enumerate(rejects[:REJECTS_MAX])
    ]
    if len(rejects) > REJECTS_MAX:
        notes[-1] = raw_note(
            topic, payload, f"{len(rejects) - REJECTS_MAX + 1} more values of this message are no readings"
        )
    return tuple(notes)


def raw_note(topic: str, payload: bytes, reason: str) -> RawNote:
    """A message that could not be understood, cut to what a note may hold."""
    if len(payload) > RAW_BYTES_MAX:
        reason = f"{reason[: RAW_REASON_CHARS_MAX - 60]} (first {RAW_BYTES_MAX} of {len(payload)} bytes)"
    return RawNote(topic[:RAW_TOPIC_CHARS_MAX], payload[:RAW_BYTES_MAX], reason[:RAW_REASON_CHARS_MAX])
