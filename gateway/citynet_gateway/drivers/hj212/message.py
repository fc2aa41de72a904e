"""The data segment of HJ 212-2017: head fields, then ``CP=&&…&&`` with the command's parameters. Pure.

Tolerant where real loggers are: blanks after separators, no QN, no Flag (both are absent in HJ/T 212-2005).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from citynet.errors import DecodeError

WANTS_ANSWER = 1  # bit 0 of Flag
IS_SPLIT = 2  # bit 1: PNUM and PNO tell the packet
VERSION_2017 = 4  # the bits above tell the version, 000001
SYSTEM = "91"  # ST of what the two systems say to each other
_PACKETS_MAX = 9_999
_UNIX = datetime(1970, 1, 1)  # noqa: DTZ001  (differences only)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Message:
    """A data segment. `items` are the parameters in their order, the value None where there was no ``=``."""

    mn: str
    cn: str
    qn: str = ""
    st: str = ""
    pw: str = ""
    flag: int = 0
    pnum: int = 0
    pno: int = 0
    items: tuple[tuple[str, str | None], ...] = ()

    @property
    def wants_answer(self) -> bool:
        return bool(self.flag & WANTS_ANSWER)

    def value(self, key: str) -> str:
        """The first value of a parameter, empty if there is none."""
        return next((value or "" for name, value in self.items if name == key), "")


def parse(data: bytes) -> Message:
    """A data segment's parts.

    Raises:
        DecodeError: no MN or CN, no ``CP=&&…&&``, or a number that is none.
    """
    text = data.decode("latin-1")  # never fails; what is looked at is ASCII
    head, opened, tail = text.partition("CP=&&")
    body, closed, _ = tail.rpartition("&&")
    if not opened or not closed:
        raise DecodeError("no-parameters", "CP", "CP=&&…&& was expected")
    fields: dict[str, str] = {}
    for field in head.split(";"):
        key, _, value = field.partition("=")
        if key.strip():
            fields.setdefault(key.strip(), value.strip())
    split = _number(fields, "Flag", 255) & IS_SPLIT
    return Message(
        mn=_needed(fields, "MN"),
        cn=_needed(fields, "CN"),
        qn=fields.get("QN", ""),
        st=fields.get("ST", ""),
        pw=fields.get("PW", ""),
        flag=_number(fields, "Flag", 255),
        pnum=_number(fields, "PNUM", _PACKETS_MAX) if split else 0,
        pno=_number(fields, "PNO", _PACKETS_MAX) if split else 0,
        items=tuple(_items(body)),
    )


def segment(message: Message) -> bytes:
    """The bytes of a data segment. `items` of one factor are not grouped: what we send has none."""
    split = f"PNUM={message.pnum};PNO={message.pno};" if message.flag & IS_SPLIT else ""
    body = ";".join(f"{key}={value}" for key, value in message.items)
    text = (
        f"QN={message.qn};ST={message.st};CN={message.cn};PW={message.pw};MN={message.mn};Flag={message.flag};"
        f"{split}CP=&&{body}&&"
    )
    return text.encode("latin-1", "replace")


def answer_to(message: Message, cn: str) -> Message:
    """What is sent back under the same QN: same version, no answer wanted, no parameters."""
    flag = message.flag & ~(WANTS_ANSWER | IS_SPLIT)
    return Message(message.mn, cn, message.qn, SYSTEM, message.pw, flag)


def time_us(text: str, zone: tzinfo) -> int:
    """µs since the Unix epoch of ``YYYYMMDDhhmmss`` (or with milliseconds behind it) in a station's local time.

    Raises:
        DecodeError: no such time.
    """
    try:
        if not text.isascii() or not text.isdigit() or len(text) not in (14, 17):
            raise ValueError
        local = datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=zone)
        offset = local.utcoffset() or timedelta()
        seconds_us = (local.replace(tzinfo=None) - offset - _UNIX) // _MICROSECOND
    except (ValueError, OverflowError):
        raise DecodeError("bad-time", "CP.DataTime", f"{text[:40]!r} is not YYYYMMDDhhmmss") from None
    return seconds_us + int(text[14:] or 0) * 1000


def time_text(at_us: int, zone: tzinfo, *, milliseconds: bool = False) -> str:
    """The other way: as DataTime, or with milliseconds as QN."""
    local = datetime.fromtimestamp(at_us // 1_000_000, zone)
    text = local.strftime("%Y%m%d%H%M%S")
    return f"{text}{at_us // 1000 % 1000:03d}" if milliseconds else text


def _items(body: str) -> Iterable[tuple[str, str | None]]:
    for group in body.split(";"):
        for item in group.split(","):
            key, given, value = item.partition("=")
            if item.strip():
                yield key.strip(), value.strip() if given else None


def _needed(fields: dict[str, str], key: str) -> str:
    value = fields.get(key, "")
    if not value:
        raise DecodeError("no-field", key, "absent or empty")
    return value


def _number(fields: dict[str, str], key: str, highest: int) -> int:
    text = fields.get(key, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= highest):
        raise DecodeError("bad-number", key, f"{text[:20]!r} is not a number up to {highest}")
    return int(text)
