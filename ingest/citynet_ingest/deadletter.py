"""Rows of the table of dead letters, made from what could not be stored. Pure."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from citynet.formats import Reject
from citynet.topics import ROOT
from citynet.wire import Header
from citynet_ingest.commit import DeadLetter
from citynet_ingest.intake import DIGEST_BYTES
from citynet_ingest.letter import READING_TYPE, TEXT_TYPE, Scope, encode_reading
from citynet_ingest.parcel import Key, Origin

_SCOPES: dict[str, Scope] = {f"{ROOT}/up": "batch", f"{ROOT}/dev": "message", f"{ROOT}/push": "message"}


def scope_of(topic: str) -> Scope:
    """What the payload of a message is that could not be understood at all, by the kind of its topic."""
    if not topic.startswith(f"{ROOT}/"):
        return "message"  # of a configured source
    return _SCOPES.get("/".join(topic.split("/", 3)[:3]), "none")


def dead_value(origin: Origin, reject: Reject, header: Header | None = None, seq: int | None = None) -> DeadLetter:
    """One value that is refused: the reading, if it could be read, else what was said about it."""
    if reject.reading is not None:
        about = msgspec.structs.replace(origin, content_type=READING_TYPE)
        return dead(about, header, seq, 1, reject, encode_reading(reject.reading), "reading")
    about = msgspec.structs.replace(origin, content_type=TEXT_TYPE)
    return dead(about, header, seq, 1, reject, reject.detail.encode("utf-8", "replace"), "none")


def dead(
    origin: Origin,
    header: Header | None,
    seq: int | None,
    records: int,
    reject: Reject,
    payload: bytes,
    scope: Scope,
    key: Key | None = None,
) -> DeadLetter:
    """A row for `payload`. Messages under different keys are different letters, whatever they say."""
    unlike = b"" if key is None else b"\0" + key.digest
    digest = blake2b(
        payload + b"\0" + reject.where.encode("utf-8", "replace") + unlike, digest_size=DIGEST_BYTES
    ).digest()
    return DeadLetter(
        topic=storable(origin.topic),
        source=header.gateway if header else None,
        stream=header.stream if header else None,
        epoch=header.epoch if header else None,
        seq=seq,
        records=records,
        reason=reject.reason,
        place=storable(reject.where),
        detail=storable(reject.detail),
        content_type=storable(origin.content_type),
        payload=payload,
        digest=digest,
        received_us=origin.received_us,
        scope=scope,
        key=None if key is None else key.digest,
        key_body=None if key is None else key.body,
    )


def storable(text: str) -> str:
    """PostgreSQL's text holds neither NUL nor lone surrogates; what a stranger sent may."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
