"""Two spools that share nothing but the port and the frame, fed the same: they must answer the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

from hypothesis import given, note, settings
from hypothesis import strategies as st

from citynet.notes import RawNote
from citynet.reading import Reading
from citynet.wire import STREAMS
from citynet_gateway.spool import SegmentSpool, Spool, SpoolSettings
from citynet_gateway.spool.sqlite import SqliteSpool

SETTINGS = SpoolSettings(segment_bytes=900, bytes_max=1 << 20, tokens_max=8)


class Pair:
    """The same life for both; every answer is compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.opening = 0
        self.spools: list[Spool] = []
        self.open()

    def open(self) -> None:
        self.opening += 1
        self.spools = [
            SegmentSpool(self.folder / "a", SETTINGS, self.opening),
            SqliteSpool(self.folder / "b", SETTINGS, self.opening),
        ]

    def both(self, name: str, *arguments: object) -> object:
        one, other = [getattr(spool, name)(*arguments) for spool in self.spools]
        assert one == other, f"{name}{arguments}: {one} and {other}"
        return one

    def compare(self, dice: Random) -> None:
        for stream in STREAMS:
            self.both("spans", stream)
            for name in ("pending", "appended", "synced"):
                self.both(name, stream)
            for back in range(1, 4):
                self.both("knows", stream, (self.number - back).to_bytes(8, "big", signed=True))
            for span in self.spools[0].spans(stream):
                seq, bound = span.acked + 1, dice.randint(1, 9)
                while (run := self.spools[0].read(stream, span.epoch, seq, bound, 2_000)) is not None:
                    assert run == self.spools[1].read(stream, span.epoch, seq, bound, 2_000)
                    seq = run.last + 1
                assert self.spools[1].read(stream, span.epoch, seq, bound, 2_000) is None
        claims = [{(c.ep, c.st, c.accepted, c.acked) for c in spool.claims() if c.accepted} for spool in self.spools]
        assert claims[0] == claims[1]

    def step(self, kind: str, dice: Random) -> None:
        stream = dice.choice(STREAMS)
        if kind == "append":
            values = [float(self.number + k) for k in range(dice.randint(1, 5))]
            rows = [Reading(f"d{int(v) % 3}", "m", int(v), v, int(v) % 4) for v in values]
            raws = [RawNote("t", bytes(dice.randint(0, 300)), "r")] * dice.randint(0, 2)
            self.both("append", stream, rows, raws, self.number.to_bytes(8, "big", signed=True))
            self.number += len(values)
        elif kind == "sync":
            self.both("sync", stream)
        elif kind == "save":
            self.both("save")
        elif kind == "ack":
            for span in self.spools[0].spans(stream):
                if span.acked < span.last:
                    self.both("ack", stream, span.epoch, dice.randint(span.acked + 1, span.last))
                    break
        else:
            if kind == "stop":  # else the acknowledgements may be forgotten, to a different degree
                self.both("save")
            else:
                self.both("save")
                for name in STREAMS:
                    self.both("append", name, [Reading("d", "never-synced", 1, 1.0)], [])
            self.both("close")
            self.open()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["append"] * 6 + ["sync"] * 4 + ["ack"] * 3 + ["save", "stop", "forget"]), max_size=60),
    st.integers(0, 2**32),
)
def test_both_answer_the_same(steps: list[str], seed: int) -> None:
    note(f"seed {seed}")
    folder, dice = Path(tempfile.mkdtemp(prefix="citynet-test-")), Random(seed)
    try:
        pair = Pair(folder)
        for kind in steps:
            pair.step(kind, dice)
            if dice.random() < 0.3:
                pair.compare(dice)
        pair.compare(dice)
        pair.both("close")
    finally:
        shutil.rmtree(folder)
