"""A timeline language for rules, on simulated time.

    city = Timeline("gas-ch4-void")
    city.at(10).reading("gas-1", 55)
    city.every(5, 10, 60).reading("gas-1", 55)
    city.at(70).watermark("gw-1")
    city.want(between(40, 41)).raised("red")
    city.play()

`play` runs the readings through the engine twice, one by one and as one batch between two watermarks, and demands in both
cases exactly the wanted transitions: each once, and none besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from citynet.batch import SeriesBatch
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.rule import COLOURS
from citynet_rules.spec import RuleSet, library_paths, load_rules

SECOND_US = 1_000_000
LIBRARY = load_rules(library_paths())


@dataclass(frozen=True)
class Span:
    """Event time from `first` to `last`, both included, in seconds."""

    first: float
    last: float

    def __contains__(self, time_us: object) -> bool:
        return isinstance(time_us, int) and self.first * SECOND_US <= time_us <= self.last * SECOND_US


def between(first: float, last: float) -> Span:
    """From `first` to `last` seconds."""
    return Span(first, last)


def exactly(second: float) -> Span:
    """At that second."""
    return Span(second, second)


@dataclass(frozen=True)
class Wanted:
    """One transition that must come."""

    span: Span
    device: str
    kind: str
    colour: str

    def fits(self, t: Transition) -> bool:
        return (t.object, t.kind, COLOURS[t.level - 1]) == (
            self.device,
            self.kind,
            self.colour,
        ) and t.time_us in self.span


@dataclass
class Timeline:
    """One rule of the library (or of `rules`), readings of the metric it watches (or of another one: ``device/metric``), and
    what must come of them."""

    rule: str
    rules: RuleSet = LIBRARY
    gateway: str = "gw-1"
    device: str = "gas-1"
    _events: list[tuple[int, int, str, float, int]] = field(default_factory=list)
    _wanted: list[Wanted] = field(default_factory=list)

    def at(self, *seconds: float) -> Moment:
        """These moments."""
        return Moment(self, seconds)

    def every(self, step: float, first: float, last: float) -> Moment:
        """Every `step` seconds from `first` to `last`, both included."""
        return Moment(self, np.arange(first, last + step / 2, step).tolist())

    def want(self, span: Span, device: str = "") -> Expectation:
        """Something must come in `span`."""
        return Expectation(self, span, device or self.device)

    def play(self) -> list[Transition]:
        """Run the timeline both ways; returns the transitions, oldest first. Changes of a verdict are the same both ways and
        no part of the story: tests/unit/test_rules_verdict.py tells those."""
        apart = self._run(one_by_one=True)
        together = self._run(one_by_one=False)
        assert sorted(map(repr, apart)) == sorted(map(repr, together))
        apart = [t for t in apart if t.kind != "verdict"]
        missing = [want for want in self._wanted if sum(want.fits(t) for t in apart) != 1]
        surplus = [t for t in apart if not any(want.fits(t) for want in self._wanted)]
        story = "\n".join(f"  {t.time_us / SECOND_US:g} s: {t.object} {t.kind} {COLOURS[t.level - 1]}" for t in apart)
        assert not missing, f"wanted once each: {missing}\nwhat came:\n{story}"
        assert not surplus, f"not wanted: {surplus}\nwhat came:\n{story}"
        return sorted(apart, key=lambda t: t.time_us)

    def _run(self, *, one_by_one: bool) -> list[Transition]:
        rule = next(rule for rule in self.rules if rule.id == self.rule)
        devices = sorted({name for _, is_mark, name, _, _ in self._events if not is_mark})
        number = {device: n for n, device in enumerate(devices)}
        engine = Engine(self.rules)
        for name, n in number.items():
            device, _, metric = name.partition("/")
            engine.bind([SeriesInfo(n, device, metric or rule.metric, self.gateway)])
        found: list[Transition] = []
        waiting: list[tuple[int, int, float, int]] = []
        for time_us, is_mark, name, value, quality in sorted(self._events, key=lambda event: event[:2]):
            if is_mark:
                found += [*_feed(engine, waiting), *engine.advance({name: time_us})]
                waiting = []
            else:
                waiting.append((number[name], time_us, value, quality))
            if one_by_one:
                found += _feed(engine, waiting)
                waiting = []
        found += _feed(engine, waiting)
        return [t for t in found if t.rule == self.rule]


def _feed(engine: Engine, rows: list[tuple[int, int, float, int]]) -> list[Transition]:
    series, time_us, value, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = (np.array(series, np.int32), np.array(time_us, np.int64), np.array(value, np.float64))
    return engine.feed(SeriesBatch.group(*columns, np.array(quality, np.uint8))).transitions


@dataclass(frozen=True)
class Moment:
    """Moments at which something happens."""

    timeline: Timeline
    seconds: Iterable[float]

    def reading(self, device: str, value: float, quality: int = 0) -> Moment:
        """The device says `value` at each of the moments."""
        self.timeline.device = device
        for second in self.seconds:
            self.timeline._events.append((round(second * SECOND_US), 0, device, value, quality))
        return self

    def watermark(self, source: str) -> Moment:
        """Nothing at or before these moments is still to come from `source` ("" is the server's clock)."""
        for second in self.seconds:
            self.timeline._events.append((round(second * SECOND_US), 1, source, 0.0, 0))
        return self


@dataclass(frozen=True)
class Expectation:
    """What must come in a span."""

    timeline: Timeline
    span: Span
    device: str

    def raised(self, colour: str) -> None:
        self._add("raise", colour)

    def escalated(self, colour: str) -> None:
        self._add("escalate", colour)

    def deescalated(self, colour: str) -> None:
        self._add("deescalate", colour)

    def cleared(self, colour: str) -> None:
        self._add("clear", colour)

    def _add(self, kind: str, colour: str) -> None:
        self.timeline._wanted.append(Wanted(self.span, self.device, kind, colour))
