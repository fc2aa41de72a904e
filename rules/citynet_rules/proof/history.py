"""Rules over history: the engine that runs live, fed with stored readings in blocks of time.

Of what live evaluation is made, the history keeps the readings and not the watermarks, that is, at which moment silence was
certain. They are put in place of it like this, at the end of every block, and what follows is documented in
docs/writing-rules.md:

- the server's own clock, and that of devices without a gateway, stand at the end of the block;
- a gateway's stands at the newest reading that came from it up to there, because a gateway that had no link was not judged live
  either.

So a replay does not see silences that were healed by a backlog: the readings are there, with their times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from citynet.batch import I64, SeriesBatch
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.proof.alerts import Alert, AlertBook
from citynet_rules.series import SERVER
from citynet_rules.spec import RuleSet
from citynet_rules.transition import NONE_US


@dataclass(frozen=True, slots=True)
class Block:
    """The readings of one stretch of time that ends at `until_us` (not included): by series and time, none of them late."""

    batch: SeriesBatch
    until_us: int


class History(Protocol):
    """Where readings of the past are."""

    def series(self) -> Sequence[SeriesInfo]:
        """Every series there is."""
        ...

    def gateways(self) -> Collection[str]:
        """Sources that are gateways; every other one is a device that speaks for itself."""
        ...

    def blocks(self, from_us: int, to_us: int) -> Iterator[Block]:
        """The readings in [from, to), in blocks of bounded size that follow each other in time."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """[from_us, to_us), and from where on readings are fed before it, so that states are as they would have been."""

    from_us: int
    to_us: int
    warmup_us: int = 0

    @property
    def start_us(self) -> int:
        return self.from_us - self.warmup_us


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it: alerts, those of the warm-up too, and how many readings were fed."""

    alerts: list[Alert]
    readings: int


def replay(
    rules: RuleSet, history: History, span: Span, progress: Callable[[int, int], None] = lambda _at, _n: None
) -> Replayed:
    """Run rules over a span of history. `progress` is told the time reached (µs) and the readings so far, after each block.

    Memory: the engine, one block (and the one that is being read), and the alerts.
    """
    engine, book = Engine(rules), AlertBook()
    series, gateways = history.series(), history.gateways()
    blocks = iter(history.blocks(span.start_us, span.to_us))
    first = next(blocks, None)  # a history that reads ahead does so while the series are bound
    engine.bind(series)
    clock = _Clock(series, gateways)
    readings = 0
    for block in chain(() if first is None else (first,), blocks):
        book.take(engine.feed(block.batch).transitions)
        book.take(engine.advance(clock.at(block, engine)))
        readings += len(block.batch)
        progress(block.until_us, readings)
    return Replayed(book.alerts(), readings)


class _Clock:
    """Watermarks by the rule above."""

    def __init__(self, series: Sequence[SeriesInfo], gateways: Collection[str]) -> None:
        known = set(gateways)
        self._gateways = sorted({info.source for info in series if info.source in known})
        self._direct = {info.source for info in series} - known
        number = {name: n for n, name in enumerate(self._gateways)}
        pairs = sorted((info.id, number[info.source]) for info in series if info.source in known)
        self._ids = np.array([pair[0] for pair in pairs], np.int32)
        self._gateway = np.array([pair[1] for pair in pairs], np.int64)

    def at(self, block: Block, engine: Engine) -> dict[str, int]:
        """Every source's watermark after `block`."""
        newest = self._newest(engine)
        marks = {
            name: min(int(newest[n]), block.until_us - 1)
            for n, name in enumerate(self._gateways)
            if newest[n] > NONE_US
        }
        return {SERVER: block.until_us - 1, **dict.fromkeys(self._direct, block.until_us - 1), **marks}

    def _newest(self, engine: Engine) -> I64:
        ids, tip_us = engine.tips()
        order = np.argsort(ids, kind="stable")
        place = order[np.searchsorted(ids, self._ids, sorter=order)] if len(self._ids) else order[:0]
        newest: I64 = np.full(len(self._gateways), NONE_US, np.int64)
        np.maximum.at(newest, self._gateway, tip_us[place])
        return newest
