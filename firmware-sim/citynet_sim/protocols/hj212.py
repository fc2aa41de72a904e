"""A monitoring station that speaks HJ 212-2017 over TCP, with a memory for what was not answered and real clocks' faults.

Framing and checksum are written here from the standard once more, on purpose not shared with the gateway.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

TIMEOUT_S = 5.0  # the standard's defaults
RECOUNT = 3
_REALTIME_S = 30


def checksum(text: bytes) -> str:
    """Four hex digits, bit by bit as the standard has it: the high byte alone meets the next character."""
    register = 0xFFFF
    for byte in text:
        register = _divided(register // 256 ^ byte)
    return format(register, "04X")


def modbus_checksum(text: bytes) -> str:
    """Four hex digits of CRC-16/Modbus, for loggers whose makers mistook one for the other."""
    register = 0xFFFF
    for byte in text:
        register = _divided(register ^ byte)
    return format(register, "04X")


def _divided(value: int) -> int:
    for _ in range(8):
        low = value & 1
        value >>= 1
        if low:
            value ^= 0xA001
    return value


def frame(segment: bytes, *, modbus: bool = False) -> bytes:
    """A data segment on the wire."""
    digits = modbus_checksum(segment) if modbus else checksum(segment)
    return b"".join([b"##", str(len(segment)).zfill(4).encode(), segment, digits.encode(), b"\r\n"])


def fields(segment: bytes) -> dict[str, str]:
    """Head and parameters of a data segment in one dict; the parameters' keys are unique in what a station receives."""
    text = segment.decode("ascii").replace("CP=&&", "").rstrip("&")
    pairs = (part.split("=", 1) for part in text.replace(",", ";").split(";") if "=" in part)
    return {key.strip(): value.strip() for key, value in pairs}


class Frames:
    """Whole data segments out of a stream. A wrong checksum is an AssertionError: here the gateway is under test."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[bytes]:
        self._rest += data
        found = []
        while b"\r\n" in self._rest:
            line, self._rest = self._rest.split(b"\r\n", 1)
            size = int(line[2:6])
            segment, digits = line[6 : 6 + size], line[6 + size :].decode()
            if not line.startswith(b"##") or digits not in (checksum(segment), modbus_checksum(segment)):
                raise AssertionError(f"the gateway sent {line!r}")
            found.append(segment)
        return found


@dataclass
class Station:
    """A station and its one connection. Not thread-safe.

    Attributes:
        clock_error: how far its clock is wrong; `now` is what it would show without that.
        heard: every data segment that came from the gateway.
    """

    port: int
    mn: str = "010000A8900016F000169DC0"
    password: str = "123456"  # noqa: S105  (the standard's own example)
    host: str = "127.0.0.1"
    modbus: bool = False
    now: datetime = datetime(2026, 11, 22, 8, 0, 0)  # noqa: DTZ001  (a station's clock knows no zone)
    clock_error: timedelta = timedelta()
    intervals: dict[str, int] = field(default_factory=lambda: {"RtdInterval": _REALTIME_S, "MinInterval": 10})
    heard: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket: socket.socket | None = None
        self._frames = Frames()
        self._qn = 0

    # --- the line ---

    def connect(self) -> None:
        self.cut()
        self._socket = socket.create_connection((self.host, self.port), TIMEOUT_S)
        self._frames = Frames()

    def cut(self) -> None:
        """The line is gone, without a word."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def send(self, data: bytes) -> None:
        """Raw bytes. OSError if the line is gone."""
        if self._socket is None:
            self.connect()
        assert self._socket is not None  # noqa: S101
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> list[dict[str, str]]:
        """What the gateway said meanwhile, requests already answered. OSError if the line is gone; TimeoutError is empty."""
        if self._socket is None:
            return []
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(4096)
        except TimeoutError:
            return []
        if not data:
            raise ConnectionResetError("the gateway closed the connection")
        said = [fields(segment) for segment in self._frames.take(data)]
        self.heard += said
        for request in said:
            if request["CN"].startswith("10"):
                self._obey(request)
        return said

    # --- what it reports ---

    def segment(
        self, cn: str, body: str, *, flag: int = 5, qn: str = "", st: str = "32", packet: tuple[int, int] | None = None
    ) -> bytes:
        """A data segment; `packet` is (PNUM, PNO)."""
        split = f"PNUM={packet[0]};PNO={packet[1]};" if packet else ""
        return (
            f"QN={qn or self.next_qn()};ST={st};CN={cn};PW={self.password};MN={self.mn};"
            f"Flag={flag | (2 if packet else 0)};{split}CP=&&{body}&&"
        ).encode("ascii")

    def next_qn(self) -> str:
        """Never the same twice."""
        self._qn += 1
        return f"{self._shown()}{self._qn % 1000:03d}"

    def values(self, values: Mapping[str, object], at: datetime | None = None, flag: str = "N") -> str:
        """Parameters of real-time data: a value and a flag of each factor."""
        parts = [f"{code}-Rtd={value},{code}-Flag={flag}" for code, value in values.items()]
        return ";".join([f"DataTime={at or self.now:%Y%m%d%H%M%S}", *parts])

    def summary(self, values: Mapping[str, Iterable[object]], at: datetime | None = None) -> str:
        """Parameters of minute, hour or day data: sum, minimum, mean and maximum of each factor."""
        kinds = ("Cou", "Min", "Avg", "Max")
        parts = [
            ",".join([*(f"{code}-{kind}={value}" for kind, value in zip(kinds, given, strict=True)), f"{code}-Flag=N"])
            for code, given in values.items()
        ]
        return ";".join([f"DataTime={at or self.now:%Y%m%d%H%M%S}", *parts])

    def deliver(self, segment: bytes, *, timeout_s: float = TIMEOUT_S, recount: int = RECOUNT) -> bool:
        """Send until a 9014 under its QN comes, over new lines where one is gone; False after `recount` repetitions."""
        qn = fields(segment)["QN"]
        for _ in range(recount + 1):
            try:
                self.send(frame(segment, modbus=self.modbus))
                while said := self.receive(timeout_s):
                    if any(item["CN"] == "9014" and item["QN"] == qn for item in said):
                        return True
            except OSError:
                self.cut()
        return False

    # --- what it does when asked ---

    def _obey(self, request: Mapping[str, str]) -> None:
        """9011, the data where some were asked for, 9012."""
        cn, qn = request["CN"], request["QN"]
        wrong = 3 if request["PW"] != self.password else 8 if cn not in _COMMANDS else 1
        self._say("9011", f"QnRtn={wrong}", qn)
        if wrong != 1:
            return
        if cn == "1011":
            self._say(cn, f"PolId=w01018;SystemTime={self._shown()}", qn, st="32")
        elif cn == "1012":
            self.clock_error = datetime.strptime(request["SystemTime"], "%Y%m%d%H%M%S") - self.now  # noqa: DTZ007
        elif cn in ("1061", "1063"):
            name = _COMMANDS[cn]
            self._say(cn, f"{name}={self.intervals[name]}", qn, st="32")
        elif cn in ("1062", "1064"):
            self.intervals[_COMMANDS[cn]] = int(request[_COMMANDS[cn]])
        self._say("9012", "ExeRtn=1", qn)

    def _say(self, cn: str, body: str, qn: str, st: str = "91") -> None:
        self.send(frame(self.segment(cn, body, flag=4, qn=qn, st=st), modbus=self.modbus))

    def _shown(self) -> str:
        """What its clock shows."""
        return f"{self.now + self.clock_error:%Y%m%d%H%M%S}"


_COMMANDS = {
    "1011": "", "1012": "", "1061": "RtdInterval", "1062": "RtdInterval", "1063": "MinInterval", "1064": "MinInterval",
}  # fmt: skip
