"""What every format decoder gives: readings, and a `Reject` for each value that is none."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite

import msgspec

from citynet.errors import DecodeError
from citynet.ids import is_id
from citynet.reading import Reading

INTEGER_MAX = 1 << 53  # beyond it a JSON number is not the number that was meant
_json = msgspec.json.Decoder()


class Reject(msgspec.Struct, frozen=True, gc=False):
    """One value of a message that is no reading: a constant reason, the place, what stood there.

    `reading` is there when the value was readable and was refused for what it says (an absurd time): it can be tried again.
    """

    reason: str
    where: str
    detail: str
    reading: Reading | None = None


class Uplink(msgspec.Struct, frozen=True, gc=False):
    """What a network server says about the message it forwards: whose it is, its frame counter, and what it calls it.

    `key` is the same for every copy of the message and for no other message of the device.
    """

    device: str
    counter: int
    key: str


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """Readings of one message, and what had to be left out of them.

    `places` has, where a decoder went value by value, the place of each reading in the message; otherwise it is None.
    """

    readings: list[Reading]
    rejects: list[Reject]
    places: list[str] | None = None
    uplink: Uplink | None = None


def load_json(payload: bytes) -> object:
    """Parse JSON; NaN and infinity are not JSON. DecodeError says where it breaks."""
    try:
        return _json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-json", "payload", str(error)[:200]) from None


def take(decoded: Decoded, device: str, metric: str, time_us: int, value: object, where: str) -> None:
    """Append one reading, or the reason why it is none. Booleans count as 0 and 1 (a door, a pump)."""
    if not is_id(metric):
        decoded.rejects.append(Reject("bad-metric", where, repr(metric[:80])))
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > INTEGER_MAX:
        decoded.rejects.append(Reject("integer-too-large", where, str(value)[:40]))
    elif isinstance(value, bool | int | float | Decimal) and isfinite(value):  # Decimal: a CBOR decimal fraction
        decoded.readings.append(Reading(device, metric, time_us, float(value)))
        if decoded.places is not None:
            decoded.places.append(where)
    else:
        decoded.rejects.append(Reject("not-a-number", where, str(value)[:80]))
