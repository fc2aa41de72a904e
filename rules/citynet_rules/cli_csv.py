"""CSV files for `citynet rules score`: complaints name file and line; a file is written whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite, nan
from pathlib import Path
from typing import TextIO

from citynet.errors import CitynetError

GAPS = frozenset({"", "nan", "na", "n/a", "null", "none"})
DELIMITERS = ",;\t"


class CsvTable:
    """A CSV file opened for one pass: header at once, rows as they are asked for.

    The delimiter is whichever of comma, semicolon and tab the header has most of.
    """

    def __init__(self, path: Path, handle: TextIO) -> None:
        self.path = path
        self.line = 1
        try:
            first = handle.readline()
            if not first.strip():
                raise CitynetError(f"{path}:1: empty; a header line is needed")
            delimiter = max(DELIMITERS, key=first.count)
            self.header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
        except (UnicodeDecodeError, csv.Error) as error:
            raise CitynetError(f"{path}:1: {error}") from None
        self._reader = csv.reader(handle, delimiter=delimiter)

    def rows(self) -> Iterator[list[str]]:
        """Cells of every line that is not blank; `line` is the line just given."""
        try:
            for cells in self._reader:
                self.line = self._reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(self.header):
                    raise self.error(f"{len(cells)} cells, the header has {len(self.header)}")
                yield cells
        except (UnicodeDecodeError, csv.Error) as error:
            self.line = self._reader.line_num + 1
            raise self.error(str(error)) from None

    def place(self, name: str) -> int:
        """Index of a column, whatever its case."""
        names = [each.lower() for each in self.header]
        if name not in names:
            raise CitynetError(f"{self.path}:1: no column {name!r}; the header has {', '.join(self.header)[:200]}")
        return names.index(name)

    def number(self, cells: list[str], place: int) -> float:
        """A cell's number; nan for a gap or what is not finite."""
        text = cells[place].strip()
        if text.lower() in GAPS:
            return nan
        try:
            value = float(text)
        except ValueError:
            raise self.error(f"column {self.header[place]!r}: {text[:40]!r} is no number") from None
        return value if isfinite(value) else nan

    def time_s(self, cells: list[str], place: int) -> float:
        """A cell's wall-clock time in seconds: ISO 8601 (an offset is left out) or seconds since 1970."""
        text = cells[place].strip()
        try:
            return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not isfinite(value):
            raise self.error(
                f"column {self.header[place]!r}: {text[:40]!r} is no time (ISO 8601 or seconds since 1970)"
            )
        return value

    def error(self, problem: str) -> CitynetError:
        """A complaint about the line just read."""
        return CitynetError(f"{self.path}:{self.line}: {problem}")


@contextmanager
def reading(path: Path) -> Iterator[CsvTable]:
    """Open a CSV file in UTF-8, with or without byte order mark."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            yield CsvTable(path, handle)
    except OSError as error:
        raise CitynetError(f"{path}: {error.strerror or error}") from None


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place when everything is written; after an error there is none."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", newline="", encoding="utf-8") as handle:
            yield handle
        os.replace(part, path)
    except OSError as error:
        raise CitynetError(f"{error.filename or path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
