"""Intake: one PUBLISH packet to one parcel. Pure; poison becomes a parcel too, nothing is dropped here."""

from __future__ import annotations

from hashlib import blake2b

import mqtt5
import msgspec

from citynet import formats, topics, wire
from citynet.batch import FUTURE_US_MAX, PAST_US_MAX, Batch
from citynet.control import Hello, Status, decode
from citynet.errors import DecodeError
from citynet.formats import Reject, Uplink
from citynet.ids import check_id, shard_of, shard_of_text
from citynet.reading import Reading
from citynet.skim import NamesMemory
from citynet_ingest.parcel import (
    BatchParcel,
    BrokerParcel,
    DirectParcel,
    HelloParcel,
    Key,
    Origin,
    Parcel,
    PassedParcel,
    PoisonParcel,
    StatusParcel,
)
from citynet_ingest.sources import Sources, content_type, unconfigured

DIGEST_BYTES = 16
_HEARD_BY_ALL = (topics.hello(""), topics.status(""))
IDEMPOTENCY_KEY = "idempotency-key"  # user property of MQTT 5
_OURS = f"{topics.ROOT}/"


class Intake:
    """Turns packets into parcels for the shards of one lane."""

    def __init__(self, shards: range, direct_content_type: str, sources: Sources, lane: int = 0) -> None:
        self._shards = shards
        self._lane = lane
        self._direct_content_type = direct_content_type
        self._names = NamesMemory()
        self._sources = sources

    def take(self, packet: mqtt5.PublishPacket, generation: int, now_us: int) -> Parcel:
        """Understand a packet received at `now_us` (µs since 1970).

        Passed is what another lane hears as well and takes, and a retained replay of data that was taken when it was live.
        """
        origin = Origin(
            packet.topic,
            packet.packet_id or 0,
            generation,
            packet.duplicate,
            now_us,
            packet.content_type or "",
            packet.payload,
            self._lane,
        )
        if packet.topic == topics.BROKER_DROPPED:
            return BrokerParcel(origin, int(packet.payload)) if packet.payload.isdigit() else PassedParcel(origin)
        if packet.response_topic and topics.is_reply(packet.response_topic):
            wanted = {"reply_topic": packet.response_topic, "correlation": packet.correlation_data or b""}
            origin = msgspec.structs.replace(origin, **wanted)
        try:
            return self._parcel(origin, packet)
        except wire.EnvelopeError as error:
            return PoisonParcel(origin, error.reason, error.where, error.detail, error.header)
        except DecodeError as error:
            if packet.topic.startswith(_HEARD_BY_ALL) and not self._takes_nobodys(packet.topic):
                return PassedParcel(origin)
            key = self._key_of_poison(origin, packet) if packet.user_properties else None
            return PoisonParcel(origin, error.reason, error.where, error.detail, key=key)

    def _parcel(self, origin: Origin, packet: mqtt5.PublishPacket) -> Parcel:
        """The parcel by its kind of topic. DecodeError: what is wrong with it."""
        if not packet.topic.startswith(_OURS):
            return PassedParcel(origin) if packet.retain else self._foreign(origin, packet)
        topic = topics.parse(packet.topic)
        if topic.kind in ("hello", "status"):  # not sharded by topic: every lane hears them, the gateway's answers
            is_ours = shard_of(topic.ident) in self._shards
            return self._control(origin, topic) if is_ours else PassedParcel(origin)
        if packet.retain or topic.shard not in self._shards:
            return PassedParcel(origin)
        if topic.kind == "up":
            return self._batch(origin, topic.ident)
        if topic.kind in ("dev", "push"):
            chosen = origin.content_type or self._direct_content_type
            return self._direct(origin, packet, topic.ident, chosen, is_for_others=topic.kind == "push")
        raise DecodeError("unknown-topic", "topic", f"{topic.kind} is not for ingest")

    def _key_of_poison(self, origin: Origin, packet: mqtt5.PublishPacket) -> Key | None:
        """What the sender calls a message that cannot be read; nothing if nobody can be said to have sent it."""
        if not packet.topic.startswith(_OURS):
            return _key(origin, packet.user_properties, self._sources.find(packet.topic)[0], None)
        try:
            topic = topics.parse(packet.topic)
        except DecodeError:
            return None
        return _key(origin, packet.user_properties, topic.ident, None) if topic.kind in ("dev", "push") else None

    def _takes_nobodys(self, topic: str) -> bool:
        """Whether poison that every lane hears is ours: by its identifier as any other, or by its bytes if it is none."""
        return shard_of_text(topic.rpartition("/")[2]) in self._shards

    def _batch(self, origin: Origin, gateway: str) -> BatchParcel:
        envelope = wire.decode(origin.payload, origin.content_type or wire.CBOR, self._names)
        header = envelope.header
        if header.gateway != gateway:  # without its header: nobody may write under another's numbers
            raise DecodeError("identity-mismatch", "gw", f"{header.gateway} published on the topic of {gateway}")
        notes = tuple((header.seq0 + position, note) for position, note in envelope.notes)
        return BatchParcel(origin, header, Batch.from_envelope(envelope, origin.received_us), notes)

    def _foreign(self, origin: Origin, packet: mqtt5.PublishPacket) -> DirectParcel | PassedParcel:
        """A message of a configured source; passed if it is another lane's."""
        device, configured, shard = self._sources.find(packet.topic)
        if shard not in self._shards:
            return PassedParcel(origin)
        if not configured:
            raise unconfigured(packet.topic)
        chosen = content_type(origin.content_type, configured)
        return self._direct(origin, packet, check_id(device, "topic"), chosen)

    @staticmethod
    def _direct(
        origin: Origin, packet: mqtt5.PublishPacket, source: str, chosen: str, *, is_for_others: bool = False
    ) -> DirectParcel:
        """A message of `source` in the format `chosen`: a device for itself, or a platform that may speak for its devices."""
        decoded = formats.decode(chosen, origin.payload, source, origin.received_us)
        uplink = decoded.uplink
        if uplink is not None:
            check_speaker(uplink, source, is_for_others=is_for_others)
        readings, rejects = decoded.readings, decoded.rejects
        low, high = origin.received_us - PAST_US_MAX, origin.received_us + FUTURE_US_MAX
        for reading in readings:  # a plain loop: this is the hot path of single messages
            if not low <= reading.time_us <= high:
                rejects = [*rejects, *(_implausible(r) for r in readings if not low <= r.time_us <= high)]
                readings = [r for r in readings if low <= r.time_us <= high]
                break
        names = tuple([f"{reading.device}/{reading.metric}" for reading in readings])
        key = _key(origin, packet.user_properties, source, uplink) if packet.user_properties or uplink else None
        return DirectParcel(origin, source, names, readings, rejects, digest_of(origin), key, uplink)

    @staticmethod
    def _control(origin: Origin, topic: topics.Topic) -> HelloParcel | StatusParcel:
        if topic.kind == "hello":
            return HelloParcel(origin, topic.ident, decode(origin.payload, Hello))
        return StatusParcel(origin, topic.ident, decode(origin.payload, Status))


def check_speaker(uplink: Uplink, source: str, *, is_for_others: bool) -> None:
    """DecodeError if `source` passes on what is of another device, and may not."""
    if uplink.device != source and not is_for_others:
        raise DecodeError("identity-mismatch", "deviceInfo.devEui", f"{uplink.device} on the topic of {source}")


def key_of_uplink(uplink: Uplink) -> Key:
    """A network server's own name for a message: the same on every way to us."""
    return Key(_hash(b"uplink", uplink.device.encode(), uplink.key.encode()), b"")


def digest_of(origin: Origin) -> bytes:
    """What recognises a redelivery. Mosquitto sends a message again under the same packet id with the duplicate flag set, so
    the id is part of it: two honest messages that look the same differ in it."""
    body = b"\0".join((origin.packet_id.to_bytes(2), origin.topic.encode(), origin.payload))
    return blake2b(body, digest_size=DIGEST_BYTES).digest()


def _key(origin: Origin, properties: list[tuple[str, str]], source: str, uplink: Uplink | None) -> Key | None:
    """What the sender calls the message. A network server's own name for it goes first."""
    if uplink is not None:
        return key_of_uplink(uplink)
    for name, value in properties:
        if name == IDEMPOTENCY_KEY:
            return Key(
                _hash(b"key", source.encode("utf-8", "surrogatepass"), value.encode("utf-8", "surrogatepass")),
                _hash(origin.payload),
            )
    return None


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"\0".join(parts), digest_size=DIGEST_BYTES).digest()


def _implausible(reading: Reading) -> Reject:
    return Reject("implausible-time", "t", f"{reading.name}: {reading.time_us} µs since 1970", reading)
