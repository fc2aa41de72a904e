"""An engine's state as bytes: a magic word, a checksum, and a msgpack body whose columns are little-endian arrays."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgspec
import numpy as np

from citynet.batch import I32, Bools
from citynet.errors import CitynetError

MAGIC = b"CNRS\x02"  # the last byte is the version of this format
_BEFORE = b"CNRS\x01"  # the same, rows with their zeros
BYTES_MAX = 1 << 30


class KindTable(msgspec.Struct, frozen=True):
    """The pairs of one kind, ordered by rule and series: `rule` int32 into `rules` (fingerprints), `series` int32 ids,
    `state` rows of the dtype that `layout` describes, as `sparse.pack` makes them (`is_sparse`) or as they are. Most pairs
    are as they were made: `fresh` has a 1 for each of them (uint8; nothing at all if there is none), and their rows are
    left out."""

    kind: str
    layout: str
    rules: list[str]
    rule: bytes
    series: bytes
    state: bytes
    fresh: bytes = b""
    is_sparse: bool = False


class JoinTable(msgspec.Struct, frozen=True):
    """Objects of one join: `anchor` int32 ids in rising order, `state` rows of the dtype that `layout` describes; waiting and
    past readings as packed rows."""

    name: str
    fingerprint: str
    layout: str
    anchor: bytes
    state: bytes
    waiting: bytes
    past: bytes


class Snapshot(msgspec.Struct, frozen=True):
    """Newest reading of every series that was fed (`ids` int32, `tip_us` int64, `tip` float64, ordered by id),
    watermarks by source, the kinds' pairs, the states of what is made of several series, those of the verdicts, and readings
    of series with a lateness bound that wait to be released."""

    ids: bytes
    tip_us: bytes
    tip: bytes
    watermarks: dict[str, int]
    tables: list[KindTable]
    joins: list[JoinTable] = []
    docket: bytes = b""
    held: bytes = b""

    def of_kind(self, kind: str) -> list[KindTable]:
        """The tables of a kind: one of its live rules and one of those in shadow, where there are any."""
        return [table for table in self.tables if table.kind == kind]


@dataclass(frozen=True)
class Part:
    """What is to be restored of one snapshot: the states of these series (int32 ids) and the watermarks of these sources;
    None takes all."""

    state: bytes
    series: I32 | None = None
    sources: frozenset[str] | None = None

    def has(self, ids: I32) -> Bools:
        """Which of `ids` it takes."""
        return np.ones(len(ids), np.bool_) if self.series is None else np.isin(ids, self.series)


def encode(snapshot: Snapshot) -> bytes:
    """Bytes of a snapshot; the same state gives the same bytes."""
    body = msgspec.msgpack.encode(snapshot, order="sorted")
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def decode(state: bytes) -> Snapshot:
    """The snapshot in `state`.

    Raises:
        CitynetError: not a snapshot, of another version, damaged, or larger than `BYTES_MAX`.
    """
    if len(state) > BYTES_MAX:
        raise CitynetError(f"rules snapshot: {len(state)} bytes, at most {BYTES_MAX}")
    if state[:4] != MAGIC[:4]:
        raise CitynetError("rules snapshot: not a snapshot of the rules engine")
    if state[:5] not in (MAGIC, _BEFORE):
        raise CitynetError(
            f"rules snapshot: format version {state[4:5].hex() or 'missing'}, this is version {MAGIC[4]}"
        )
    body = state[9:]
    if zlib.crc32(body).to_bytes(4, "little") != state[5:9]:
        raise CitynetError("rules snapshot: damaged (checksum differs)")
    try:
        snapshot = msgspec.msgpack.decode(body, type=Snapshot)
    except msgspec.DecodeError as error:
        raise CitynetError(f"rules snapshot: {error}") from None
    _check(snapshot)
    return snapshot


def _check(snapshot: Snapshot) -> None:
    """Columns of one table must be of one length."""
    if not (len(snapshot.ids) * 2 == len(snapshot.tip_us) == len(snapshot.tip) and len(snapshot.ids) % 4 == 0):
        raise CitynetError("rules snapshot: columns of the series differ in length")
    for table in snapshot.tables:
        count = len(table.rule) // 4
        if len(table.rule) != len(table.series) or len(table.rule) % 4 or len(table.fresh) not in (0, count):
            raise CitynetError(f"rules snapshot: columns of kind {table.kind[:64]} differ in length")
