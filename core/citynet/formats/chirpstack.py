"""ChirpStack v4 uplink events (JSON of the event ``up``): the codec's output as metrics, and the best gateway's signal.

Numbers and booleans below ``object`` are readings; a nested name is joined with dots (``soil.temp``, ``probes.0``). Text and
null describe a reading and are none, so they are left out. The shape is that of ChirpStack's ``integration.proto`` in its JSON
mapping, which leaves out fields at their default: a missing ``fCnt`` is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Annotated

import msgspec

from citynet.errors import DecodeError
from citynet.formats.decoded import Decoded, Reject, Uplink, take

RSSI, SNR = "rssi_dbm", "snr_db"
_DEPTH_MAX = 8
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

DevEui = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{16}$")]
MessageId = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,128}$")]
Counter = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class _DeviceInfo(msgspec.Struct, rename="camel", gc=False):
    dev_eui: DevEui


class _Reception(msgspec.Struct, gc=False):
    """How one gateway heard the uplink."""

    rssi: float | None = None
    snr: float | None = None


class _Event(msgspec.Struct, rename="camel"):
    deduplication_id: MessageId
    device_info: _DeviceInfo
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    f_cnt: Counter = 0
    data: str = ""
    output: dict[str, object] | None = msgspec.field(default=None, name="object")  # of the codec
    rx_info: list[_Reception] = []


_event = msgspec.json.Decoder(_Event)


def decode(payload: bytes, device: str, accept_us: int) -> Decoded:
    """Readings of an uplink. They are those of the device that the event names; `device` only says whose topic it came on."""
    del device
    try:
        event = _event.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        kind = "wrong-shape" if isinstance(error, msgspec.ValidationError) else "bad-json"
        raise DecodeError(kind, "payload", str(error)[:200]) from None
    eui = event.device_info.dev_eui.lower()
    time_us = accept_us if event.time is None else (event.time - _UNIX) // _MICROSECOND
    decoded = Decoded([], [], [], Uplink(eui, event.f_cnt, event.deduplication_id))
    if event.output is not None:
        _flatten(decoded, eui, time_us, event.output)
    elif event.data:
        detail = "no codec is configured in the device profile; the data stays with this dead letter"
        decoded.rejects.append(Reject("no-object", "$.object", detail))
    _signal(decoded, eui, time_us, event.rx_info)
    return decoded


def _flatten(decoded: Decoded, device: str, time_us: int, body: dict[str, object]) -> None:
    for path, value in _leaves("", body, _DEPTH_MAX):
        if value is not None and not isinstance(value, str):
            take(decoded, device, path, time_us, value, f"$.object.{path[:80]}")


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """(dotted path, value) of everything that is no object or list; what is nested too deep is given as it is."""
    inner: list[tuple[str, object]]
    if depth and isinstance(value, dict):
        inner = list(value.items())
    elif depth and isinstance(value, list):
        inner = [(str(position), item) for position, item in enumerate(value)]
    else:
        yield path, value
        return
    for name, item in inner:
        yield from _leaves(f"{path}.{name}" if path else name, item, depth - 1)


def _signal(decoded: Decoded, device: str, time_us: int, receptions: list[_Reception]) -> None:
    """Signal of the gateway that heard it best (highest SNR, then RSSI), unless the codec has metrics of these names."""
    heard = [reception for reception in receptions if reception.rssi is not None]
    if not heard:
        return
    best = max(heard, key=lambda reception: (reception.snr or 0.0, reception.rssi or -inf))
    taken = {reading.metric for reading in decoded.readings}
    for metric, value in ((RSSI, best.rssi), (SNR, best.snr or 0.0)):
        if metric not in taken and value is not None:
            take(decoded, device, metric, time_us, value, f"$.rxInfo.{metric}")
