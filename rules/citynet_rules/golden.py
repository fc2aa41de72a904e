"""Golden cases of rules: a CSV of readings each, and the transitions that must come of them.

``NAME.csv`` in a folder is a case of the rule NAME, or of the rule before ``--`` (``gas-h2s--dip.csv``). Columns:

    from_s,to_s,step_s,device,value,to_value

One line is the readings of `device` every `step_s` seconds from `from_s` to `to_s`, both included, with `value`, or on a
straight line from `value` to `to_value` where that is given. Where there are columns `hz` and `swing` with numbers, a sine of
that frequency and amplitude is added, its phase 0 at 0 s. Device ``@gw-1`` is a watermark of that gateway (``@`` alone
of the server); all devices are behind gw-1. A device sends the rule's metric; where the rule needs another one, because it is
on a derived metric or has conditions, the column names it: ``DEVICE/METRIC``. ``NAME.expected`` beside it holds one
transition a line: seconds, device, change, colour, value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet_rules.cli_csv import CsvTable, reading
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.rule import COLOURS
from citynet_rules.spec import RuleSet

WAVE = ("hz", "swing")
COLUMNS = ("from_s", "to_s", "step_s", "device", "value", "to_value")
READINGS_MAX = 1_000_000
GATEWAY = "gw-1"
Row = tuple[float, int, str, float]  # seconds, 1 for a watermark, device or source, value


@dataclass(frozen=True)
class Outcome:
    """What came of a case, as lines, and what was expected; `devices` are all that spoke, `rule` the rule's id."""

    case: Path
    rule: str
    devices: tuple[str, ...]
    got: tuple[str, ...]
    expected: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.got == self.expected


def cases(folder: Path) -> list[Path]:
    """The cases of a folder, by name.

    Raises:
        CitynetError: there is none.
    """
    found = sorted(folder.glob("*.csv"))
    if not found:
        raise CitynetError(f"{folder}: no cases (RULE.csv) in this folder")
    return found


def expected_path(case: Path) -> Path:
    """Where the expected transitions of a case stand."""
    return case.with_suffix(".expected")


def run(case: Path, rules: RuleSet) -> Outcome:
    """Run a case on its rule alone.

    Raises:
        CitynetError: no such rule, or a mistake in the file, with its line.
    """
    ident = case.stem.split("--")[0]
    rule = next((rule for rule in rules if rule.id == ident), None)
    if rule is None:
        raise CitynetError(f"{case}: there is no rule {ident}")
    rows = _rows(case)
    devices = tuple(sorted({name for _, is_mark, name, _ in rows if not is_mark}))
    found = _play(dataclasses.replace(rules, rules=(rule,)), devices, rows)
    got = tuple(_line(t) for t in sorted(found, key=lambda t: (t.time_us, t.object)))
    path = expected_path(case)
    expected = tuple(path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
    return Outcome(case, ident, tuple(sorted({name.partition("/")[0] for name in devices})), got, expected)


def _play(rules: RuleSet, devices: Sequence[str], rows: Sequence[Row]) -> list[Transition]:
    """Play the rows on a set of one rule."""
    engine = Engine(rules)
    number = {device: n for n, device in enumerate(devices)}
    for name, n in number.items():
        device, _, metric = name.partition("/")
        engine.bind([SeriesInfo(n, device, metric or rules.rules[0].metric, GATEWAY)])
    found: list[Transition] = []
    waiting: list[Row] = []
    for row in sorted(rows, key=lambda row: row[:2]):
        if row[1]:
            found += [*_feed(engine, number, waiting), *engine.advance({row[2]: _us(row[0])})]
            waiting = []
        else:
            waiting.append(row)
    return found + _feed(engine, number, waiting)


def _feed(engine: Engine, number: dict[str, int], rows: Sequence[Row]) -> list[Transition]:
    series = np.array([number[name] for _, _, name, _ in rows], np.int32)
    time_us = np.array([_us(second) for second, *_ in rows], np.int64)
    value = np.array([value for *_, value in rows], np.float64)
    return engine.feed(SeriesBatch.group(series, time_us, value, np.zeros(len(rows), np.uint8))).transitions


def _rows(case: Path) -> list[Row]:
    rows: list[Row] = []
    with reading(case) as table:
        places = [table.place(name) for name in (*COLUMNS, *(name for name in WAVE if name in table.header))]
        for cells in table.rows():
            rows += _expanded(table, cells, places)
            if len(rows) > READINGS_MAX:
                raise table.error(f"more than {READINGS_MAX} readings")
    return rows


def _expanded(table: CsvTable, cells: list[str], places: Sequence[int]) -> list[Row]:
    first, last, step, value, to_value = (table.number(cells, places[n]) for n in (0, 1, 2, 4, 5))
    device = cells[places[3]].strip()
    if not np.isfinite(first):
        raise table.error("from_s is missing")
    if not np.isfinite(last):
        last, step = first, 1.0
    if not step > 0 or last < first or (last - first) / step > READINGS_MAX:
        raise table.error(f"no readings every {step:g} s from {first:g} to {last:g}")
    seconds = np.arange(first, last + step / 2, step)
    if device.startswith("@"):
        return [(second, 1, device[1:], 0.0) for second in seconds.tolist()]
    if not device:
        raise table.error("device is missing")
    values = np.linspace(value, to_value if np.isfinite(to_value) else value, len(seconds))
    if len(places) == len(COLUMNS) + len(WAVE):
        hz, swing = (table.number(cells, place) for place in places[len(COLUMNS) :])
        values += np.where(np.isfinite(hz * swing), swing * np.sin(2 * np.pi * hz * seconds), 0.0)
    return [(second, 0, device, each) for second, each in zip(seconds.tolist(), values.tolist(), strict=True)]


def _us(second: float) -> int:
    return round(second * 1_000_000)


def _line(t: Transition) -> str:
    value = "-" if t.value is None else f"{t.value:.6g}"
    return f"{t.time_us / 1_000_000:.10g} {t.object} {t.kind} {COLOURS[t.level - 1]} {value}"
