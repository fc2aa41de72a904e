"""Small JSON messages beside the data: acknowledgement, hello, status."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from citynet.errors import DecodeError

T = TypeVar("T", bound=msgspec.Struct)

AckCause = Literal["commit", "duplicate", "gap", "hello"]


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Server to gateway: everything up to `seq` of this epoch and stream is committed (or in dead letter).

    `why` tells an ordinary acknowledgement from the answer to a gap or a hello; only the latter two may make a gateway
    go back. `ref` repeats the hello's `ref`. `credit` is how many further batches the server is ready to take.
    """

    ep: int
    st: str
    seq: int
    credit: int
    why: AckCause = "commit"
    ref: str = ""


class Held(msgspec.Struct, frozen=True):
    """What a spool holds of one stream and epoch: records `first`..`last`; `first` > `last` when all is acknowledged."""

    ep: int
    st: str
    first: int
    last: int


class Hello(msgspec.Struct, frozen=True):
    """Gateway to server at every connect: what the spool holds. The server answers one `Ack` an entry, `ref` repeated."""

    ref: str
    held: list[Held]


class Claim(msgspec.Struct, frozen=True):
    """Highest accepted sequence number of a stream and epoch, and the lowest one still in the spool (0: none)."""

    ep: int
    st: str
    accepted: int
    acked: int


class Status(msgspec.Struct, frozen=True):
    """Retained on the gateway's status topic; the will is the same with ``online=false``.

    `claims` covers every epoch the spool still remembers; `at_us` is the gateway's clock; `clock` is ``synced`` or
    ``unsynced``; `full` is true while the spool refuses.
    """

    online: bool
    version: str = ""
    at_us: int = 0
    clock: str = "synced"
    full: bool = False
    spool_bytes: int = 0
    spool_bytes_max: int = 0
    rejected: int = 0
    claims: list[Claim] = []  # noqa: RUF012  (msgspec copies mutable defaults)


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a control message."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[T]) -> T:
    """Decode a control message. DecodeError names the field that is wrong."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-control-message", kind.__name__.lower(), str(error)[:200]) from None
