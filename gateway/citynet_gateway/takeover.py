"""Noticing that another machine uses our identifier: the broker ends one connection for the other, in turns. Pure.

MQTT 5 has a reason code for it, but a broker may just close the connection (Mosquitto 2.0 does); then only the pattern is left.
"""

from __future__ import annotations

import math

SESSION_TAKEN_OVER = 0x8E  # MQTT 5, reason code of DISCONNECT
WINDOW_S = 600.0
TOLD_MIN = 2  # once may be our own connection that the broker had not given up
CUTS_MIN = 5  # without a reason; a broker that restarts this often is worth a look as well
TELL_AGAIN_S = 60.0
SPREAD_S = 6  # up to so long two machines that end each other's connections wait, each as the dice say


class Cuts:
    """Established connections that were ended from outside."""

    def __init__(self) -> None:
        self._told: list[float] = []
        self._cuts: list[float] = []
        self._warned_at_s = -math.inf

    def cut(self, reason: int, now_s: float) -> str | None:
        """A connection was ended with this reason code. Returns what to tell people, if it is time to."""
        self._cuts.append(now_s)
        if reason == SESSION_TAKEN_OVER:
            self._told.append(now_s)
        meaning = self._meaning(now_s)
        if meaning is None or now_s - self._warned_at_s < TELL_AGAIN_S:
            return None
        self._warned_at_s = now_s
        return meaning

    def spread_s(self, now_s: float) -> int:
        """Up to how many seconds to wait before connecting again, at random. 1: at once, nothing speaks for another machine.

        If both came back after a second, each would have a second at a time: too little for an answer on a slow link, for ever.
        """
        return 1 if self._meaning(now_s) is None else SPREAD_S

    def _meaning(self, now_s: float) -> str | None:
        """What the pattern of the last ten minutes speaks for."""
        self._told, self._cuts = _recent(self._told, now_s), _recent(self._cuts, now_s)
        if len(self._told) >= TOLD_MIN:
            return "another machine logs in under this gateway's id: a cloned card?"
        if len(self._cuts) >= CUTS_MIN:
            return "the connection is ended again and again: another machine under this gateway's id, or a broker in trouble"
        return None


def _recent(moments: list[float], now_s: float) -> list[float]:
    """Those within the window; no more than matter."""
    return [moment for moment in moments if now_s - moment < WINDOW_S][-CUTS_MIN:]
