"""History in a file: the readings that a simulated city wrote instead of sending them (`citynet sim run --out`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet_rules.engine import SeriesInfo
from citynet_rules.proof.history import Block
from citynet_rules.proof.truth import Truth

READINGS_MAX = 1_000_000  # in a block
BLOCK_US_MAX = 3_600_000_000


class _Line(msgspec.Struct):
    time_us: int
    device: str
    values: dict[str, float | None]


class RecordedHistory:
    """The readings file of a truth: one message a line, ordered by time. Its series are those of the truth's header."""

    def __init__(self, path: Path, truth: Truth) -> None:
        self._path = path
        self._gateways = truth.gateways
        named = enumerate(truth.series, start=1)
        self._series = [SeriesInfo(n, device, metric, gateway) for n, (device, metric, gateway) in named]
        self._ids = {(info.device, info.metric): info.id for info in self._series}

    def series(self) -> Sequence[SeriesInfo]:
        return self._series

    def gateways(self) -> Collection[str]:
        return self._gateways

    def extent(self) -> tuple[int, int]:
        """Times of the first and the last line, µs. CitynetError if there is none."""
        first = last = None
        for line in self._lines():
            first = line.time_us if first is None else first
            last = line.time_us
        if first is None or last is None:
            raise CitynetError(f"{self._path}: holds no readings")
        return first, last

    def blocks(self, from_us: int, to_us: int) -> Iterator[Block]:
        rows: list[tuple[int, int, float]] = []
        until_us = from_us + BLOCK_US_MAX
        newest_us = from_us
        for number, line in enumerate(self._lines(), start=1):
            if line.time_us >= to_us:
                break
            if line.time_us < from_us:
                continue
            if line.time_us < newest_us:
                raise CitynetError(f"{self._path}, line {number}: is older than the line before it")
            while line.time_us >= until_us or (len(rows) >= READINGS_MAX and line.time_us > newest_us):
                end_us = min(until_us, line.time_us)
                yield Block(_batch(rows), end_us)
                rows, until_us = [], end_us + BLOCK_US_MAX
            newest_us = line.time_us
            rows += self._rows(number, line)
        yield Block(_batch(rows), to_us)

    def _rows(self, number: int, line: _Line) -> list[tuple[int, int, float]]:
        found = []
        for metric, value in line.values.items():
            ident = self._ids.get((line.device, metric))
            if ident is None:
                raise CitynetError(f"{self._path}, line {number}: the truth knows no {line.device[:64]}/{metric[:64]}")
            found.append((ident, line.time_us, float("nan") if value is None else value))
        return found

    def _lines(self) -> Iterator[_Line]:
        decoder = msgspec.json.Decoder(_Line)
        try:
            with self._path.open("rb") as file:
                yield from self._decoded(file, decoder)
        except OSError as error:
            raise CitynetError(f"{self._path}: {error.strerror}") from None

    def _decoded(self, file: BinaryIO, decoder: msgspec.json.Decoder[_Line]) -> Iterator[_Line]:
        for number, raw in enumerate(file, start=1):
            try:
                yield decoder.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise CitynetError(f"{self._path}, line {number}: {error}") from None


def _batch(rows: list[tuple[int, int, float]]) -> SeriesBatch:
    """Readings in order of time as a batch, grouped by series."""
    series = np.array([row[0] for row in rows], np.int32)
    time_us = np.array([row[1] for row in rows], np.int64)
    value = np.array([row[2] for row in rows], np.float64)
    return SeriesBatch.group(series, time_us, value, np.zeros(len(rows), np.uint8))
