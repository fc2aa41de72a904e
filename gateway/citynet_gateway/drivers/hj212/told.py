"""What stations have told and we have safely: so that a repetition is answered and not stored again. Pure.

Bounded by station, so that a station that talks much does not push out what a silent one said before its line was
cut. Only what is durable in the spool is remembered here; for the moments between, and after a kill, the spool
knows the token of the whole message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from citynet_gateway.drivers.hj212.readings import Statement

GROUPS_MAX = 8_192  # (MN, CN, DataTime) of all stations together
GROUPS_OF_STATION_MIN = 32

_Saved = dict[str, list[tuple[bytes, list[bytes]]]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Saved)


class Told:
    """The last groups of each station and the statements of each."""

    def __init__(self, stations: Iterable[str], groups_max: int = GROUPS_MAX) -> None:
        self._groups: dict[str, dict[bytes, set[bytes]]] = {mn: {} for mn in stations}
        self._share = max(GROUPS_OF_STATION_MIN, groups_max // max(1, len(self._groups)))
        self.changed = False  # since the last `dump`

    def fresh(self, mn: str, group: bytes, statements: Sequence[Statement]) -> list[Statement]:
        """Those that were not told before."""
        known = self._groups[mn].get(group, set())
        return [statement for statement in statements if statement.name not in known]

    def add(self, mn: str, group: bytes, names: Iterable[bytes]) -> None:
        """These are durable now."""
        groups = self._groups[mn]
        known = groups.pop(group, set())  # to the young end
        groups[group] = known.union(names)
        while len(groups) > self._share:
            del groups[next(iter(groups))]
        self.changed = True

    def dump(self) -> bytes:
        """To be kept over a restart."""
        self.changed = False
        return _encoder.encode(
            {mn: [(group, sorted(names)) for group, names in groups.items()] for mn, groups in self._groups.items()}
        )

    def load(self, saved: bytes) -> bool:
        """What `dump` gave, for stations that are still there. False if it cannot be read: then nothing is known."""
        try:
            found = _decoder.decode(saved)
        except msgspec.DecodeError:
            return False
        for mn, groups in found.items():
            if mn in self._groups:
                self._groups[mn] = {group: set(names) for group, names in groups[-self._share :]}
        return True
