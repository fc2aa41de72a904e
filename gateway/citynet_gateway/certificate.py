"""Until when a certificate is valid, read off its file: a gateway should say so before the broker does, who says it badly.

The standard library decodes the certificate of a peer only; five fields of DER (X.690, RFC 5280 section 4.1) are enough here.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from citynet.errors import CitynetError

_VERSION = 0xA0
_UTC_TIME = 0x17
WARN_S = 30 * 86_400


class CertificateError(CitynetError):
    """The file holds no certificate that can be read."""


def expiry(path: Path) -> datetime:
    """The end of validity of the first certificate in a PEM file. CertificateError, OSError."""
    text = path.read_text(encoding="ascii", errors="replace")
    begin, end = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    try:
        if begin < 0 or end < begin:
            raise ValueError("no certificate in it")
        return _not_after(ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")]))
    except (ValueError, IndexError) as error:
        raise CertificateError(f"{path}: not a certificate: {error}") from None


def _not_after(der: bytes) -> datetime:
    _, certificate, _ = _element(der, 0)
    _, body, _ = _element(certificate, 0)
    at = _element(body, 0)[2] if body[0] == _VERSION else 0
    for _ in range(3):  # serial number, algorithm, issuer
        at = _element(body, at)[2]
    _, validity, _ = _element(body, at)
    kind, text, _ = _element(validity, _element(validity, 0)[2])
    # UTCTime has two digits of the year: 50 to 99 are of the last century.
    century = "" if kind != _UTC_TIME else "19" if text[:2] >= b"50" else "20"
    return datetime.strptime(century + text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """(tag, content, offset behind it) of the element at `at`. IndexError, ValueError."""
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    if begin + length > len(data):
        raise ValueError("cut off")
    return tag, data[begin : begin + length], begin + length


def trouble(path: Path | None, now: datetime) -> str:
    """What is wrong with our certificate, in plain words; empty if nothing is."""
    if path is None:
        return ""
    try:
        end = expiry(path)
    except (OSError, CertificateError) as error:
        return str(error)
    left_s = (end - now).total_seconds()
    if left_s <= 0:
        return f"our certificate {path} expired on {end:%Y-%m-%d %H:%M} UTC"
    return f"our certificate {path} expires in {int(left_s // 86_400)} days" if left_s < WARN_S else ""
