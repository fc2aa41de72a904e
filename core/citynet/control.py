"""Small JSON messages beside the data: acknowledgement, hello, status."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from citynet.errors import DecodeError

T = TypeVar("T", bound=msgspec.Struct)

Stream = Literal["telemetry", "alarm"]
Epoch = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
KEY_REUSED = "idempotency-key-reused"  # reason of an outcome: the key came before with another body
AckCause = Literal["commit", "duplicate", "gap", "hello"]
CommandState = Literal["done", "trial", "refused", "failed", "rolled-back", "interrupted"]


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Server to gateway: all up to `seq` of this epoch and stream is committed (or in dead letter).

    `why` tells an ordinary acknowledgement from the answer to a gap or a hello; only the latter two may make a gateway
    go back. `ref` repeats the hello's `ref`. `credit` is how many further batches the server is ready to take.
    """

    ep: Epoch
    st: Stream
    seq: Seq
    credit: int
    why: AckCause = "commit"
    ref: str = ""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """Server to whoever asked for a reply: what became of one message, sent after COMMIT.

    `duplicate`: it was stored before, so nothing is counted here. `reason` and `where` are those of the first dead letter.
    For a batch `ack` is its own acknowledgement; a batch without one could not be read and has no place in any sequence.
    """

    stored: int = 0
    dead_lettered: int = 0
    duplicate: bool = False
    reason: str = ""
    where: str = ""
    ack: Ack | None = None


class Held(msgspec.Struct, frozen=True):
    """What a spool holds of one stream and epoch: records `first`..`last`; `first` > `last` when all is acknowledged."""

    ep: Epoch
    st: Stream
    first: Seq
    last: Seq


class Hello(msgspec.Struct, frozen=True):
    """Gateway to server at every connect: what the spool holds. Answered by one `Ack` an entry, `ref` repeated."""

    ref: str
    held: Annotated[list[Held], msgspec.Meta(max_length=1024)]


class Claim(msgspec.Struct, frozen=True):
    """Highest accepted sequence number of a stream and epoch, and the lowest one still in the spool (0: none)."""

    ep: Epoch
    st: Stream
    accepted: Seq
    acked: Seq


class Status(msgspec.Struct, frozen=True):
    """Retained on the gateway's status topic; the will is the same with ``online=false``.

    `claims` covers every epoch the spool still remembers; `at_us` is the gateway's clock; `clock` is ``synced`` or
    ``unsynced``; `full` is true while the spool refuses. `drivers` says by driver what is wrong with its source, in plain
    words; empty text where nothing is.
    """

    online: bool
    version: str = ""
    at_us: int = 0
    clock: str = "synced"
    full: bool = False
    spool_bytes: int = 0
    spool_bytes_max: int = 0
    rejected: int = 0
    claims: Annotated[list[Claim], msgspec.Meta(max_length=1024)] = []
    drivers: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}


class Command(msgspec.Struct, frozen=True):
    """Operator to gateway: do `kind` with `args`, once, however often this `id` comes; not after `deadline_us` (UTC, µs)."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    kind: Annotated[str, msgspec.Meta(pattern=r"^[a-z-]{1,32}$")]
    deadline_us: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    args: dict[str, Any] = {}


class CommandResult(msgspec.Struct, frozen=True):
    """Gateway to operator: what became of the command `id`.

    `state` is ``done``, ``trial`` (a configuration is being tried; another result follows), ``rolled-back``, ``refused``
    (nothing was done), ``failed``, or ``interrupted`` (the gateway was restarted meanwhile: done or not, it does not know).
    `at_us` is the gateway's clock.
    """

    id: str
    kind: str
    state: CommandState
    reason: str = ""
    data: dict[str, Any] = {}
    at_us: int = 0


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a control message."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[T]) -> T:
    """Decode a control message. DecodeError names the field that is wrong."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-control-message", kind.__name__.lower(), str(error)[:200]) from None
