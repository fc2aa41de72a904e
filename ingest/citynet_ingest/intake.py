"""Intake: one PUBLISH packet to one parcel. Pure; poison becomes a parcel too, nothing is dropped here."""

from __future__ import annotations

from hashlib import blake2b

import mqtt5

from citynet import formats, topics, wire
from citynet.batch import FUTURE_US_MAX, PAST_US_MAX, Batch
from citynet.control import Hello, Status, decode
from citynet.errors import DecodeError
from citynet.formats import Reject
from citynet.ids import shard_of
from citynet.reading import Reading
from citynet.skim import NamesMemory
from citynet_ingest.parcel import (
    BatchParcel,
    BrokerParcel,
    DirectParcel,
    HelloParcel,
    Origin,
    Parcel,
    PoisonParcel,
    StatusParcel,
)

DIGEST_BYTES = 16


class Intake:
    """Turns packets into parcels for the shards of one worker."""

    def __init__(self, shards: range, direct_content_type: str) -> None:
        self._shards = shards
        self._direct_content_type = direct_content_type
        self._names = NamesMemory()

    def take(self, packet: mqtt5.PublishPacket, generation: int, now_us: int) -> Parcel | None:
        """Understand a packet received at `now_us` (µs since 1970).

        None means: another worker's business, or a retained replay of data that was taken when it was live.
        """
        origin = Origin(
            packet.topic,
            packet.packet_id or 0,
            generation,
            packet.duplicate,
            now_us,
            packet.content_type or "",
            packet.payload,
        )
        if packet.topic == topics.BROKER_DROPPED:
            return BrokerParcel(origin, int(packet.payload)) if packet.payload.isdigit() else None
        try:
            topic = topics.parse(packet.topic)
            if topic.kind in ("hello", "status"):  # not sharded by topic: every worker hears them, the owner answers
                return self._control(origin, topic) if shard_of(topic.ident) in self._shards else None
            if packet.retain or topic.shard not in self._shards:
                return None
            if topic.kind == "up":
                return self._batch(origin, topic.ident)
            if topic.kind == "dev":
                return self._direct(origin, topic.ident)
            raise DecodeError("unknown-topic", "topic", f"{topic.kind} is not for ingest")
        except wire.EnvelopeError as error:
            return PoisonParcel(origin, error.reason, error.where, error.detail, error.header)
        except DecodeError as error:
            return PoisonParcel(origin, error.reason, error.where, error.detail)

    def _batch(self, origin: Origin, gateway: str) -> BatchParcel:
        envelope = wire.decode(origin.payload, origin.content_type or wire.CBOR, self._names)
        header = envelope.header
        if header.gateway != gateway:  # without its header: nobody may write under another's numbers
            raise DecodeError("identity-mismatch", "gw", f"{header.gateway} published on the topic of {gateway}")
        notes = tuple((header.seq0 + position, note) for position, note in envelope.notes)
        return BatchParcel(origin, header, Batch.from_envelope(envelope, origin.received_us), notes)

    def _direct(self, origin: Origin, device: str) -> DirectParcel:
        decoded = formats.decode(
            origin.content_type or self._direct_content_type, origin.payload, device, origin.received_us
        )
        readings, rejects = decoded.readings, decoded.rejects
        low, high = origin.received_us - PAST_US_MAX, origin.received_us + FUTURE_US_MAX
        for reading in readings:  # a plain loop: this is the hot path of single messages
            if not low <= reading.time_us <= high:
                rejects = [*rejects, *(_implausible(r) for r in readings if not low <= r.time_us <= high)]
                readings = [r for r in readings if low <= r.time_us <= high]
                break
        names = tuple([f"{device}/{reading.metric}" for reading in readings])
        return DirectParcel(origin, device, names, readings, rejects, digest_of(origin))

    @staticmethod
    def _control(origin: Origin, topic: topics.Topic) -> HelloParcel | StatusParcel:
        if topic.kind == "hello":
            return HelloParcel(origin, topic.ident, decode(origin.payload, Hello))
        return StatusParcel(origin, topic.ident, decode(origin.payload, Status))


def digest_of(origin: Origin) -> bytes:
    """What recognises a redelivery. Mosquitto sends a message again under the same packet id with the duplicate flag set, so
    the id is part of it: two honest messages that look the same differ in it."""
    body = b"\0".join((origin.packet_id.to_bytes(2), origin.topic.encode(), origin.payload))
    return blake2b(body, digest_size=DIGEST_BYTES).digest()


def _implausible(reading: Reading) -> Reject:
    return Reject("implausible-time", "t", f"{reading.name}: {reading.time_us} µs since 1970", reading)
