"""The truth file: what the city sent, what became of it, and which incidents it staged (docs/truth-file.md).

JSON Lines, appended and flushed line by line, so that whatever happens to the process, every message that may
have reached the broker is in the file. Reading needs only the standard library, msgspec and the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from citynet.errors import CitynetError
from citynet.reading import Reading

VERSION = 1
LOST_BUFFER_FULL = "buffer-full"
LOST_STOPPED = "stopped"
LOST_TRANSPORT = "transport"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class TruthError(CitynetError):
    """A truth file that cannot be written or understood; names the file and, when reading, the line."""


@dataclass(frozen=True, slots=True)
class TruthMessage:
    """One message of the run.

    `acked`: its PUBACK came, so the broker has it. `lost`: the device gave it up before it was ever handed to
    the broker, and why. Neither: it may or may not have been accepted. `resends`: how often it was handed
    over once more after a connection broke without its PUBACK, so up to ``1 + resends`` copies may exist.
    `is_copy`: a transport fault made it out of another one; it counts as a message of its own.
    """

    number: int
    gateway: str
    device: str
    readings: tuple[Reading, ...]
    acked: bool
    lost: str | None
    resends: int
    is_copy: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The counters of a run that stopped cleanly: messages made, acknowledged and given up; readings made."""

    sent: int
    acked: int
    lost: int
    readings: int


@dataclass(frozen=True, slots=True)
class Truth:
    """A whole truth file. `end` is None where the process did not stop cleanly."""

    header: dict[str, Any]
    messages: tuple[TruthMessage, ...]
    end: End | None

    @property
    def incidents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.header["incidents"]
        return found


# --- writing ---------------------------------------------------------------------------------------------------------


class TruthWriter:
    """Writes one run's truth; without a path it writes nothing, so that callers need not ask."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        if path is None:
            return
        try:
            self._file = path.open("xb")
        except FileExistsError:
            raise TruthError(f"truth file {path}: already there; the truth of a run is never written over") from None
        except OSError as error:
            raise TruthError(f"truth file {path}: {error.strerror}") from None

    def header(self, header: dict[str, Any]) -> None:
        """The first line."""
        self._write([{"t": "header", "v": VERSION, **header}])

    def messages(self, messages: Iterable[tuple[int, str, Sequence[Reading], bool]]) -> None:
        """(number, gateway, readings, whether it is a copy) of messages, written before they are handed over."""
        self._write(
            {
                "t": "msg", "n": number, "gateway": gateway, "device": readings[0].device,
                "readings": [[r.metric, r.time_us, r.value] for r in readings], **({"copy": True} if is_copy else {}),
            }
            for number, gateway, readings, is_copy in messages
        )  # fmt: skip

    def shown(self, readings: Sequence[Reading]) -> None:
        """What a polled device has just answered, or put where it is read."""
        device = readings[0].device
        self._write([{"t": "shown", "device": device, "readings": [[r.metric, r.time_us, r.value] for r in readings]}])

    def acked(self, upto: int, also: Sequence[int]) -> None:
        """All up to `upto` are settled (acknowledged unless declared lost); `also` are acknowledged beyond it."""
        self._write([{"t": "ack", "upto": upto, "also": list(also)} if also else {"t": "ack", "upto": upto}])

    def resent(self, numbers: Sequence[int]) -> None:
        """These messages are about to be handed over once more; whether the first copy arrived is unknown."""
        self._write([{"t": "again", "n": list(numbers)}])

    def lost(self, numbers: Sequence[int], reason: str) -> None:
        """These messages were given up before they were ever handed over."""
        self._write([{"t": "loss", "n": list(numbers), "reason": reason}])

    def end(self, end: End) -> None:
        """The last line; closes the file."""
        self._write([{"t": "end", **asdict(end)}])
        self.close()

    def close(self) -> None:
        """Close without an end line."""
        if self._file is not None:
            with suppress(OSError):  # a full disk has been reported by the write that met it
                self._file.close()
            self._file = None

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(b"".join(_encoder.encode(line) + b"\n" for line in lines))
            self._file.flush()
        except OSError as error:
            raise TruthError(f"truth file {self._path}: {error.strerror}") from None


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """What has been read so far."""

    header: dict[str, Any] | None = None
    made: dict[int, tuple[str, str, tuple[Reading, ...], bool]] = field(default_factory=dict)
    upto: int = 0
    also: set[int] = field(default_factory=set)
    lost: dict[int, str] = field(default_factory=dict)
    resends: dict[int, int] = field(default_factory=dict)
    end: End | None = None

    def take(self, line: dict[str, Any]) -> None:
        """One line; KeyError, TypeError, ValueError and IndexError mean that it is malformed."""
        kind = line["t"]
        if (kind == "header") != (self.header is None) or self.end is not None:
            raise ValueError(f"{kind!r} cannot stand here")
        if kind == "header":
            if line["v"] != VERSION:
                raise ValueError(f"version {line['v']!r}, this reader knows {VERSION}")
            self.header = line
        elif kind == "msg":
            self._message(line)
        elif kind == "ack":
            self.upto = max(self.upto, int(line["upto"]))
            self.also.update(line.get("also", ()))
        elif kind == "loss":
            self.lost.update(dict.fromkeys(line["n"], str(line["reason"])))
        elif kind == "again":
            self._again(line["n"])
        elif kind == "end":
            self.end = End(line["sent"], line["acked"], line["lost"], line["readings"])
        elif kind != "shown":  # what polled devices answered, for who compares it with what was read
            raise ValueError(f"unknown kind {kind!r}")

    def _again(self, numbers: list[int]) -> None:
        for number in numbers:
            self.resends[number] = self.resends.get(number, 0) + 1

    def _message(self, line: dict[str, Any]) -> None:
        number, device = int(line["n"]), str(line["device"])
        if number != len(self.made) + 1:
            raise ValueError(f"message {number} follows message {len(self.made)}")
        readings = tuple(Reading(device, metric, time_us, value) for metric, time_us, value in line["readings"])
        self.made[number] = (str(line["gateway"]), device, readings, bool(line.get("copy", False)))

    def truth(self) -> Truth:
        messages = tuple(
            TruthMessage(
                number, gateway, device, readings,
                acked=number not in self.lost and (number <= self.upto or number in self.also),
                lost=self.lost.get(number), resends=self.resends.get(number, 0),
                is_copy=is_copy,
            )
            for number, (gateway, device, readings, is_copy) in self.made.items()
        )  # fmt: skip
        return Truth(self.header or {}, messages, self.end)


def read_truth(path: Path) -> Truth:
    """Read a truth file. A torn last line (the process was killed while writing) is left out.

    Raises:
        TruthError: no such file, no header, or a malformed line, with the line's number.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TruthError(f"truth file {path}: {error.strerror}") from None
    draft = _Draft()
    for number, raw in enumerate(lines[:-1], start=1):  # what follows the last newline is empty, or torn
        try:
            draft.take(_decoder.decode(raw))
        except (
            msgspec.DecodeError,
            UnicodeDecodeError,
            KeyError,
            TypeError,
            ValueError,
            IndexError,
        ) as error:
            raise TruthError(f"truth file {path}, line {number}: {error}") from None
    if draft.header is None:
        raise TruthError(f"truth file {path}: no header line")
    return draft.truth()
