"""A spool on the modelled file system beside a model of what it promised; every restart checks one against the other."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

from citynet.control import Stream
from citynet.notes import LossNote, RawNote
from citynet.reading import Reading
from citynet.wire import STREAMS, TELEMETRY
from citynet_gateway.spool import SegmentSpool, Spool, SpoolFull, SpoolSettings
from citynet_gateway.spool.reader import SPOOL_FULL
from tests.sim_files import DiedError, SimFiles

FOLDER = Path("/spool")
LOST = -1.0
SETTINGS = SpoolSettings(segment_bytes=450, bytes_max=3_600, tokens_max=6, pending_bytes_max=8_000)
FAULTS = ("pwrite", "datasync", "truncate", "create", "sync_folder", "unlink", "open", "close")
Key = tuple[Stream, int]


class SpoolWorld:
    """Every record is a number. `safe` is what was promised, `open` what was appended since the last sync."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.files = SimFiles()
        self.number = 0
        self.declared = 0
        self.safe: dict[Key, list[float]] = {}
        self.open: dict[Stream, list[float]] = {}
        self.open_tokens: dict[Stream, list[bytes]] = {}
        self.safe_tokens: dict[Stream, list[bytes]] = {stream: [] for stream in STREAMS}
        self.acked: dict[Key, int] = {}
        self._start()

    def _start(self) -> None:
        self.epoch = self.random.getrandbits(50) + 1
        self.spool = self._open()
        for stream in STREAMS:
            self.safe[stream, self.epoch] = []
            self.open[stream], self.open_tokens[stream] = [], []

    def _open(self) -> Spool:
        return SegmentSpool(FOLDER, SETTINGS, self.epoch, self.files)

    # --- the life of a spool ---

    def append(self, stream: Stream, readings: int, notes: int, size: int, *, waits: bool = True) -> None:
        values = [float(self.number + k) for k in range(readings + notes)]
        token = self.number.to_bytes(8, "big")
        rows = [Reading("d", "m", int(value), value) for value in values[:readings]]
        raws = [RawNote("t", b"x" * size, str(value)) for value in values[readings:]]
        try:
            last = self.spool.append(stream, rows, raws, token, waits=waits)
        except SpoolFull:
            return
        except DiedError:  # while the oldest telemetry gave way
            self.restart(self.random.choice(["kill", "cut"]))
            return
        self.number += len(values)
        self.open[stream] += values
        self.open_tokens[stream].append(token)
        assert last == len(self.safe[stream, self.epoch]) + len(self.open[stream])

    def sync(self, stream: Stream) -> None:
        if self._survives(lambda: self.spool.sync(stream)):
            self.safe[stream, self.epoch] += self.open[stream]
            self.safe_tokens[stream] += self.open_tokens[stream]
            self.open[stream], self.open_tokens[stream] = [], []

    def ack(self, stream: Stream, share: float) -> None:
        spans = [span for span in self.spool.spans(stream) if span.acked < span.last]
        if spans:
            span = spans[0]
            seq = span.acked + max(1, round(share * (span.last - span.acked)))
            self.acked[stream, span.epoch] = seq
            self._survives(lambda: self.spool.ack(stream, span.epoch, seq))

    def save(self) -> None:
        self._survives(self.spool.save)

    def plan_failure(self, operation: str, after: int, code: int) -> None:
        """The call `after` calls from now fails with `code`."""
        self.files.faults[operation] = [None] * after + [OSError(code, "planned")]

    def plan_short_write(self, room: int) -> None:
        self.files.faults["pwrite"] = [room, room]

    def plan_death(self, calls: int) -> None:
        """The process dies inside the operation that makes that many calls more."""
        self.files.dies_in = calls

    def restart(self, how: str) -> None:
        """`how`: stop, kill, or cut (of the power)."""
        if how == "stop":
            self.files.faults.clear()
            self.files.dies_in = None
            self.spool.close()
        if how == "cut":
            self.files.cut(self.random)
        else:
            self.files.kill()
        self._reopen()

    def _survives(self, action: Callable[[], object]) -> bool:
        """Whether the action succeeded; where it dies, the spool is opened again after a kill or a power cut."""
        try:
            action()
        except OSError:
            return False  # nothing was promised
        except DiedError:
            self.restart(self.random.choice(["kill", "cut"]))
            return False
        return True

    # --- what must hold ---

    def _reopen(self) -> None:
        before, unsafe, tokens = self.epoch, dict(self.open), dict(self.open_tokens)
        self._start()
        for stream in STREAMS:
            for span in self.spool.spans(stream):
                have = self._check_epoch(stream, span.epoch, unsafe[stream] if span.epoch == before else [])
                if span.epoch == before:
                    for token in tokens[stream]:
                        was_kept = float(int.from_bytes(token, "big")) in have
                        assert was_kept or not self.spool.knows(stream, token), "a lost message would count as taken"
                        self.safe_tokens[stream] += [token] if was_kept else []
            for token in self.safe_tokens[stream][-SETTINGS.tokens_max :]:
                assert self.spool.knows(stream, token), "a synced message would be taken twice"

    def _check_epoch(self, stream: Stream, epoch: int, unsafe: list[float]) -> list[float]:
        safe = self.safe.setdefault((stream, epoch), [])
        span = next(span for span in self.spool.spans(stream) if span.epoch == epoch)
        assert span.acked <= self.acked.get((stream, epoch), 0)
        have = self._undeclared(safe + unsafe, safe[: span.acked] + self.read(stream, epoch, span.acked + 1), stream)
        assert have[: len(safe)] == safe, "a synced record is lost or changed"
        assert have == (safe + unsafe)[: len(have)], "a record that nobody wrote"
        # What was recovered beyond the promise is part of it from now on: it may be sent, and its token answers a repeat.
        self.safe[stream, epoch] = have
        return have

    def _undeclared(self, written: list[float], have: list[float], stream: Stream) -> list[float]:
        """`have` with what was given up filled in from `written`: telemetry only, and nothing newer than what is kept."""
        lost = [at for at, value in enumerate(have) if value == LOST]
        if lost:
            assert stream == TELEMETRY
            assert have[lost[0] : lost[-1] + 1] == [LOST] * len(lost), "not the oldest gave way"
            self.declared += len(lost)
        return [written[at] if value == LOST else value for at, value in enumerate(have)]

    def read(self, stream: Stream, epoch: int, seq: int) -> list[float]:
        """The numbers from `seq` on, `LOST` for what is declared to have given way."""
        values: list[float] = []
        while (run := self.spool.read(stream, epoch, seq, self.random.randint(1, 9), 4_000)) is not None:
            assert run.seq0 == seq
            assert run.count == len(run.readings) + sum(item.span for _, item in run.notes)
            notes = dict(run.notes)
            readings = iter(run.readings)
            position = 0
            while position < run.count:
                found = notes.get(position)
                if isinstance(found, LossNote):
                    assert found.reason == SPOOL_FULL, "nothing was damaged"
                    assert found.first == seq + position
                    values += [LOST] * found.span
                else:
                    values.append(float(found.reason) if isinstance(found, RawNote) else next(readings).value)
                position += found.span if found is not None else 1
            seq = run.last + 1
        return values

    def read_anywhere(self, stream: Stream, share: float) -> None:
        if self.files.faults or self.files.dies_in is not None:
            return
        spans = self.spool.spans(stream)
        span = spans[self.random.randrange(len(spans))]
        if span.acked < span.last:
            seq = span.acked + 1 + int(share * (span.last - span.acked - 1))
            written = self.safe[stream, span.epoch][seq - 1 :]
            assert self._undeclared(written, self.read(stream, span.epoch, seq), stream) == written

    def check_books(self) -> None:
        for stream in STREAMS:
            live = self.spool.spans(stream)[-1]
            assert (live.epoch, live.last) == (self.epoch, len(self.safe[stream, self.epoch]))
            assert self.spool.pending(stream) == len(self.open[stream])
        assert self.spool.used_bytes <= SETTINGS.bytes_max

    # --- a life by the dice ---

    def live(self, steps: int) -> None:  # noqa: C901  (one dispatch)
        """`steps` random steps, weighted so that segments fill, rotate and are trimmed between the faults."""
        dice = self.random
        weights = {
            "write": 10,
            "append": 4,
            "sync": 4,
            "ack": 3,
            "save": 1,
            "fail": 2,
            "short": 1,
            "die": 2,
            "restart": 2,
            "read": 2,
        }
        for step in dice.choices(list(weights), list(weights.values()), k=steps):
            stream = dice.choice(STREAMS)
            if step in ("write", "append"):
                for _ in range(dice.randint(1, 3) if step == "write" else 1):
                    self.append(
                        stream, dice.randint(1, 4), dice.randint(0, 1), dice.randint(0, 300), waits=dice.random() < 0.6
                    )
            if step in ("write", "sync"):
                self.sync(stream)
            elif step == "ack":
                self.ack(stream, dice.random())
            elif step == "save":
                self.save()
            elif step == "fail":
                self.plan_failure(dice.choice(FAULTS), dice.randint(0, 2), dice.choice([errno.ENOSPC, errno.EIO]))
            elif step == "short":
                self.plan_short_write(dice.randint(1, 40))
            elif step == "die":
                self.plan_death(dice.randint(0, 8))
            elif step == "restart":
                self.restart(dice.choice(["stop", "kill", "cut"]))
            elif step == "read":
                self.read_anywhere(stream, dice.random())
            self.check_books()
        self.restart("cut")
