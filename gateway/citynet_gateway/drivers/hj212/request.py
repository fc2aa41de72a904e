"""Requests from us to a station, without IO: what is asked, and what its answers come to.

The standard's way: the request, the station's 9011 (whether it will do it), where something was asked for the data
under the request's own CN and QN, and its 9012 (what came of it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo

from citynet_gateway.drivers.hj212.message import VERSION_2017, WANTS_ANSWER, Message, time_text

REQUEST_ANSWER = "9011"
RESULT = "9012"
NOTICE_ANSWER = "9013"
DATA_ANSWER = "9014"
CLOCK_WANTED = "1013"  # a station asks for the time
OVER_TIME_S = 5.0  # the standard's timeout and number of sends
SENDS_MAX = 3

_QN_RTN = {
    1: "ready", 2: "refused", 3: "wrong-password", 4: "wrong-mn", 5: "wrong-st", 6: "wrong-flag", 7: "wrong-qn",
    8: "wrong-cn", 9: "wrong-checksum", 100: "unknown-error",
}  # fmt: skip
_EXE_RTN = {1: "done", 2: "failed", 3: "wrong-condition", 4: "timeout", 5: "busy", 6: "fault", 100: "no-data"}


@dataclass(frozen=True, slots=True)
class Request:
    """A command to a station: its CN and parameters; `asks` if data come back under the same CN."""

    cn: str
    items: tuple[tuple[str, str], ...] = ()
    asks: bool = False
    st: str = "32"

    def message(self, mn: str, password: str, qn: str) -> Message:
        return Message(mn, self.cn, qn, self.st, password, VERSION_2017 | WANTS_ANSWER, items=self.items)


def clock_query() -> Request:
    """What time is it at the station? The reply's values have ``SystemTime``."""
    return Request("1011", asks=True)


def clock_set(at_us: int, zone: tzinfo) -> Request:
    """Set the station's clock."""
    return Request("1012", (("SystemTime", time_text(at_us, zone)),))


def interval_query(*, minute: bool = False) -> Request:
    """How often does it report: real-time data in seconds (``RtdInterval``), minute data in minutes (``MinInterval``)."""
    return Request("1063" if minute else "1061", asks=True)


def interval_set(interval: int, *, minute: bool = False) -> Request:
    """Change it; seconds, or minutes for minute data."""
    return Request("1064", (("MinInterval", str(interval)),)) if minute else Request(
        "1062", (("RtdInterval", str(interval)),)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request: ``done``, or why not; the values that the station gave."""

    outcome: str
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.outcome == "done"


class Exchange:
    """One request on its way. Feed it what the station says."""

    def __init__(self, request: Request, qn: str) -> None:
        self.request = request
        self.qn = qn
        self.answered = False  # the station has it: it is not sent again
        self.reply: Reply | None = None
        self._values: dict[str, str] = {}

    def take(self, message: Message) -> bool:
        """Whether the message belongs to this exchange. Then `reply` may be there."""
        if message.qn != self.qn or message.cn not in (REQUEST_ANSWER, RESULT, self.request.cn):
            return False
        self.answered = True
        if message.cn == REQUEST_ANSWER:
            verdict = _word(message.value("QnRtn"), _QN_RTN)
            if verdict != "ready":
                self.reply = Reply(verdict)
        elif message.cn == RESULT:
            self.reply = Reply(_word(message.value("ExeRtn"), _EXE_RTN), self._values)
        else:
            self._values.update({key: value or "" for key, value in message.items})
        return True

    def give_up(self) -> Reply:
        """Nothing more came. What was asked for counts even without a last word."""
        if self.request.asks and self._values:
            return Reply("done", self._values)
        return Reply("no-result" if self.answered else "no-answer")


def _word(code: str, words: Mapping[int, str]) -> str:
    return words.get(int(code), f"code-{code}") if code.isascii() and code.isdigit() and len(code) < 5 else "no-code"
