"""The port of a spool: what the service asks of it, whatever it is built on.

Every method of `Spool` is called from one thread. A record is a reading or a note; a frame is what one source
message gave to one stream and is accepted as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from citynet.control import Claim, Stream
from citynet.errors import CitynetError
from citynet.notes import Note
from citynet.reading import Reading

RECORDS_MAX = 8_192  # records of one frame: formats.decode gives at most 5,000 and the rejects are folded


class SpoolFull(CitynetError):  # noqa: N818  (a state that ends by itself, not a mistake)
    """The spool is at its cap: nothing more is accepted until the server has acknowledged some of it."""

    def __init__(self, stream: Stream, used_bytes: int, cap_bytes: int) -> None:
        self.stream = stream
        self.used_bytes = used_bytes
        self.cap_bytes = cap_bytes
        super().__init__(f"spool full: {stream} holds {used_bytes} of {cap_bytes} bytes")


class SpoolLocked(CitynetError):  # noqa: N818
    """Another process has this spool open; two writers would destroy it."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Bounds of a spool.

    `bytes_max` is the cap of all segment files together; an eighth of it is kept for alarms, so that a
    telemetry backlog never refuses one. `age_max_s` is the cap of age, in seconds that the spool was open (0: none).
    `tokens_max` is how many source tokens of a stream are remembered for
    de-duplication.
    """

    segment_bytes: int = 4 << 20
    bytes_max: int = 1 << 30
    tokens_max: int = 4_096
    pending_bytes_max: int = 4 << 20
    finished_epochs_max: int = 16
    age_max_s: int = 0

    def cap(self, stream: Stream) -> int:
        """Most bytes that a stream may take. Alarms may take what telemetry leaves."""
        return self.bytes_max if stream == "alarm" else self.bytes_max - self.bytes_max // 8

    def room(self, stream: Stream, *, waits: bool) -> int:
        """Up to how many bytes a stream takes from sources that can wait, or cannot.

        For those that cannot there is always a little more room, so that what they displace is not taken by the others.
        """
        return self.cap(stream) - (2 * self.segment_bytes if waits and stream == "telemetry" else 0)


@dataclass(frozen=True, slots=True)
class Frame:
    """Records `seq0` .. `last` of one source message: the readings first, then the notes. Frames hold no losses.

    `synced` is the highest number that was safe when the frame was written. It tells a hole in what was never promised (a
    torn group) from damage.
    """

    seq0: int
    synced: int
    token: bytes
    readings: tuple[Reading, ...]
    notes: tuple[Note, ...]

    @property
    def count(self) -> int:
        return len(self.readings) + len(self.notes)

    @property
    def last(self) -> int:
        return self.seq0 + self.count - 1


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive records of one epoch and stream, ready for an envelope.

    `notes` are (position from `seq0`, note).
    """

    epoch: int
    seq0: int
    count: int
    readings: list[Reading]
    notes: list[tuple[int, Note]]

    @property
    def last(self) -> int:
        return self.seq0 + self.count - 1


@dataclass(frozen=True, slots=True)
class Span:
    """What the spool knows of one epoch in one stream: acknowledged up to `acked`, accepted (and synced) up to `last`.

    `live` marks the epoch that still grows.
    """

    epoch: int
    acked: int
    last: int
    live: bool


class Spool(Protocol):
    """Append, sync, read back, acknowledge.

    OSError means the storage refused; nothing was promised, try again later.
    """

    @property
    def epoch(self) -> int:
        """The epoch of this opening."""
        ...

    @property
    def used_bytes(self) -> int: ...

    def append(
        self,
        stream: Stream,
        readings: Sequence[Reading],
        notes: Sequence[Note],
        token: bytes = b"",
        *,
        waits: bool = True,
    ) -> int:
        """Take a frame into memory and return its last sequence number.

        It is safe only after `sync`. For a source that cannot wait (not `waits`) the oldest telemetry gives way. SpoolFull.
        """
        ...

    def give_way(self) -> bool:
        """Give up the oldest telemetry, its loss written down first; False if there is none to give."""
        ...

    def expire(self) -> None:
        """Give up telemetry that is older than the cap of age. OSError: later."""
        ...

    @property
    def given_up(self) -> Mapping[str, int]:
        """Records given up since the opening, by reason."""
        ...

    def appended(self, stream: Stream) -> int:
        """The highest sequence number given out in the live epoch, synced or not."""
        ...

    def synced(self, stream: Stream) -> int:
        """The highest sequence number of the live epoch that is safe."""
        ...

    @property
    def lost_records(self) -> int:
        """Records found damaged while reading since the opening."""
        ...

    def pending(self, stream: Stream) -> int:
        """How many records were appended and not yet synced."""
        ...

    def pending_bytes(self, stream: Stream) -> int:
        """How many bytes the next sync of the stream will write, about."""
        ...

    def sync(self, stream: Stream) -> int:
        """Bring everything appended to storage.

        Return the highest synced sequence number. OSError: nothing lost, retry.
        """
        ...

    def knows(self, stream: Stream, token: bytes) -> bool:
        """Whether a frame of this source token is among the remembered ones (synced or pending)."""
        ...

    def spans(self, stream: Stream) -> list[Span]:
        """Every epoch remembered, oldest first, the live one last."""
        ...

    def read(self, stream: Stream, epoch: int, seq: int, records_max: int, bytes_max: int) -> Run | None:
        """Records from `seq` on, whatever is gone declared as a loss; None when there is nothing after it."""
        ...

    def ack(self, stream: Stream, epoch: int, seq: int) -> None:
        """The server has everything up to `seq`: remember that, then drop what is no longer needed."""
        ...

    def claims(self) -> list[Claim]:
        """Highest accepted and acknowledged numbers of every epoch remembered."""
        ...

    def save(self) -> None:
        """Persist watermark and claims; called before a claim is told to the server."""
        ...

    def close(self) -> None: ...
