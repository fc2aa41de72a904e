"""Errors that cross a room's border. Each one says what was wrong and where."""

from __future__ import annotations


class CitynetError(Exception):
    """Anything citynet itself refuses or reports; a command prints it in one line and exits with 1."""


class DecodeError(CitynetError):
    """Bytes or text from outside that cannot be understood.

    Attributes:
        reason: a constant, countable code such as ``bad-cbor`` or ``length-mismatch``.
        where: the place, such as ``dt`` or ``names[3]`` or ``$.values.temperature``.
        detail: what was found there, for a person.
    """

    def __init__(self, reason: str, where: str, detail: str = "") -> None:
        self.reason = reason
        self.where = where
        self.detail = detail
        super().__init__(f"{reason} at {where}: {detail}" if detail else f"{reason} at {where}")


class ConfigError(CitynetError):
    """Settings or rule files that cannot be used; `problems` lists every mistake, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
