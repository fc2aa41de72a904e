"""MQTT topics of the application, all below ``citynet/v1/`` (wire contract)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from citynet.errors import DecodeError
from citynet.ids import SHARDS, check_id, is_id, shard_of

ROOT = "citynet/v1"
UP_ALL = f"{ROOT}/up/+/+"
DEV_ALL = f"{ROOT}/dev/+/+"
REPLY_PREFIX = f"{ROOT}/reply/"
HELLO_ALL = f"{ROOT}/hello/+"
STATUS_ALL = f"{ROOT}/status/+"
BROKER_DROPPED = (
    "$SYS/broker/publish/messages/dropped"  # Mosquitto's own counter, over all its clients, since its start
)

_REMEMBERED = 65_536
_SHARDED = frozenset({"up", "dev", "push"})
_PLAIN = frozenset({"ack", "hello", "status", "cmd", "cmd-result"})


@dataclass(frozen=True, slots=True)
class Topic:
    """A parsed application topic; `shard` is None for the kinds that carry none."""

    kind: str
    ident: str
    shard: int | None = None


def up(gateway: str) -> str:
    """Where a gateway publishes its batch envelopes."""
    return f"{ROOT}/up/{shard_of(gateway):02d}/{gateway}"


def dev(device: str) -> str:
    """Where a device without a gateway publishes SenML or ThingsBoard JSON."""
    return f"{ROOT}/dev/{shard_of(device):02d}/{device}"


def push(source: str) -> str:
    """Where the HTTP front publishes what a source pushed; it may speak of several devices."""
    return f"{ROOT}/push/{shard_of(source):02d}/{source}"


def reply(client: str) -> str:
    """Where a client hears what became of the messages that it asked a reply for."""
    return f"{REPLY_PREFIX}{client}"


def is_reply(topic: str) -> bool:
    """Whether `topic` is one that replies may go to."""
    return topic.startswith(REPLY_PREFIX) and is_id(topic[len(REPLY_PREFIX) :])


def ack(gateway: str) -> str:
    """Where the server acknowledges a gateway's batches."""
    return f"{ROOT}/ack/{gateway}"


def hello(gateway: str) -> str:
    """Where a gateway tells what its spool holds; the answer comes on `ack`."""
    return f"{ROOT}/hello/{gateway}"


def status(gateway: str) -> str:
    """Where a gateway's retained status lives; also its will."""
    return f"{ROOT}/status/{gateway}"


def command(gateway: str) -> str:
    """Where a gateway takes commands."""
    return f"{ROOT}/cmd/{gateway}"


def command_result(gateway: str) -> str:
    """Where a gateway tells what became of a command."""
    return f"{ROOT}/cmd-result/{gateway}"


def field(prefix: str, gateway: str, device: str) -> str:
    """Where a device publishes to its gateway's local broker."""
    return f"{prefix}/{gateway}/{device}"


@lru_cache(_REMEMBERED)  # a device publishes on one topic all its life
def parse(topic: str) -> Topic:
    """Parse an application topic.

    Raises:
        DecodeError: not one of ours, a bad identifier, or a shard that is not the identifier's own.
    """
    parts = topic.split("/")
    if len(parts) < 4 or parts[0] != "citynet" or parts[1] != "v1":
        raise DecodeError("unknown-topic", "topic", repr(topic[:120]))
    kind = parts[2]
    if kind in _PLAIN and len(parts) == 4:
        return Topic(kind, check_id(parts[3], "topic"))
    if kind in _SHARDED and len(parts) == 5:
        ident = check_id(parts[4], "topic")
        shard = parts[3]
        if not (len(shard) == 2 and shard.isascii() and shard.isdigit() and int(shard) < SHARDS):
            raise DecodeError("bad-shard", "topic", f"{shard[:8]!r} is not two digits below {SHARDS}")
        if int(shard) != shard_of(ident):
            raise DecodeError("wrong-shard", "topic", f"{ident} belongs to shard {shard_of(ident):02d}, not {shard}")
        return Topic(kind, ident, int(shard))
    raise DecodeError("unknown-topic", "topic", repr(topic[:120]))
