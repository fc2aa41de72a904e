"""What devices say, turned into readings: ThingsBoard JSON, SenML in JSON and CBOR (RFC 8428), ChirpStack's uplink events.

One bad value costs only itself: it becomes a `Reject` beside the good readings of its message. A message that cannot be
read at all raises `DecodeError`. The format is chosen by content type or by configuration, never by sniffing.
"""

from __future__ import annotations

from collections.abc import Callable

from citynet.errors import DecodeError
from citynet.formats import chirpstack, senml, thingsboard
from citynet.formats.decoded import INTEGER_MAX, Decoded, Reject, Uplink

__all__ = [
    "BYTES_MAX", "CHIRPSTACK", "INTEGER_MAX", "SENML", "SENML_CBOR", "THINGSBOARD",
    "Decoded", "Reject", "Uplink", "bare", "content_type_of", "decode", "is_known",
]  # fmt: skip

THINGSBOARD = "application/vnd.thingsboard.telemetry+json"
SENML = "application/senml+json"
SENML_CBOR = "application/senml+cbor"
CHIRPSTACK = "application/vnd.chirpstack.up+json"
BYTES_MAX = 256 * 1024
READINGS_MAX = 5_000

_DECODERS: dict[str, Callable[[bytes, str, int], Decoded]] = {
    THINGSBOARD: thingsboard.decode,
    "application/json": thingsboard.decode,
    SENML: senml.decode_json,
    SENML_CBOR: senml.decode_cbor,
    CHIRPSTACK: chirpstack.decode,
}
_BY_NAME = {"thingsboard": THINGSBOARD, "senml": SENML, "senml+cbor": SENML_CBOR, "chirpstack": CHIRPSTACK}


def decode(content_type: str, payload: bytes, device: str, accept_us: int) -> Decoded:
    """Decode a device's message.

    Args:
        content_type: MQTT 5 content type, or the configured one; parameters after ``;`` are ignored.
        device: the device that the topic names.
        accept_us: when the message was accepted, µs since the Unix epoch; stands in where the message has no time.

    Raises:
        DecodeError: unknown content type, too large, not JSON, or of the wrong shape.
    """
    if len(payload) > BYTES_MAX:
        raise DecodeError("too-large", "payload", f"{len(payload)} bytes, at most {BYTES_MAX}")
    decoder = _DECODERS.get(content_type) or _DECODERS.get(bare(content_type))
    if decoder is None:
        raise DecodeError("unknown-content-type", "content-type", repr(content_type[:80]))
    decoded = decoder(payload, device, accept_us)
    if len(decoded.readings) + len(decoded.rejects) > READINGS_MAX:
        raise DecodeError("too-many-readings", "payload", f"at most {READINGS_MAX} a message")
    return decoded


def is_known(content_type: str) -> bool:
    """Whether `decode` understands this content type."""
    return bare(content_type) in _DECODERS


def content_type_of(name: str) -> str:
    """The content type of a format's short name, or a known content type itself. ValueError names what there is."""
    found = _BY_NAME.get(name, bare(name))
    if found not in _DECODERS:
        raise ValueError(f"unknown format {name[:80]!r}; known: {', '.join(sorted({*_BY_NAME, *_DECODERS}))}")
    return found


def bare(content_type: str) -> str:
    """Without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
