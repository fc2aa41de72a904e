"""Quality code of a reading, one byte: two bits of grade, six flags (wire contract, "Quality code")."""

from __future__ import annotations

GOOD = 0
UNCERTAIN = 1
BAD = 2
GRADE_MASK = 3

OUT_OF_RANGE = 4
STUCK = 8
CLOCK_UNSYNCED = 16
SUBSTITUTED = 32
LATE = 64
TEST = 128

_FLAGS = (
    (OUT_OF_RANGE, "out_of_range"),
    (STUCK, "stuck"),
    (CLOCK_UNSYNCED, "clock_unsynced"),
    (SUBSTITUTED, "substituted"),
    (LATE, "late"),
    (TEST, "test"),
)
_GRADES = ("good", "uncertain", "bad", "bad")


def describe(code: int) -> str:
    """Words for a quality code: ``describe(66) == "bad+late"``."""
    return "+".join([_GRADES[code & GRADE_MASK], *(name for bit, name in _FLAGS if code & bit)])
