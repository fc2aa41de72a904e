"""Logging: lines of facts on stderr, for people on a terminal, JSON elsewhere. Event names are constants in kebab-case.

Our own few lines, because a gateway's memory is dear. Under systemd every line carries its priority, so that
``journalctl -p warning`` works.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from citynet.runtime.settings import LogSettings

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # of syslog, as sd-daemon(3) has them
_EVENT_WIDTH = 30


@dataclass(slots=True)
class _Style:
    """How this process writes."""

    level: int = LEVELS["debug"]
    as_json: bool = False
    journal: bool = False
    role: str = ""


_style = _Style()
_writing = threading.Lock()


def configure(settings: LogSettings, role: str) -> None:
    """Set up logging for this process; every line carries `role`."""
    _style.level = LEVELS[settings.level]
    _style.as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    _style.journal = _is_journal()
    _style.role = role


def reset() -> None:
    """As before `configure`."""
    configure(LogSettings(level="debug", format="console"), "")


def get(name: str) -> Logger:
    """A logger; `name` tells the module."""
    return Logger({"module": name})


@dataclass(frozen=True, slots=True)
class Logger:
    """Writes events with their facts; `context` is in every line."""

    context: dict[str, Any] = field(default_factory=dict)

    def bind(self, **facts: Any) -> Logger:
        """A logger with more context."""
        return Logger({**self.context, **facts})

    def debug(self, event: str, **facts: Any) -> None:
        self._log("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        self._log("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._log("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """`exc_info`: an exception's (type, value, traceback), which becomes the fact ``exception``."""
        self._log("error", event, facts)

    def _log(self, level: str, event: str, facts: dict[str, Any]) -> None:
        if LEVELS[level] < _style.level:
            return
        entry: dict[str, Any] = {**self.context, **facts, "event": event}
        if _style.role:
            entry["role"] = _style.role
        entry["level"] = level
        entry["at"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if (failure := entry.pop("exc_info", None)) is not None:
            entry["exception"] = "".join(traceback.format_exception(*failure)).rstrip()
        line = json.dumps(entry, ensure_ascii=False, default=repr) if _style.as_json else _plain(entry)
        if _style.journal:
            line = f"<{_PRIORITIES[level]}>{line}"
        with _writing:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _plain(entry: dict[str, Any]) -> str:
    """A line for people; an exception follows on lines of its own."""
    facts = dict(entry)
    head = f"{facts.pop('at')} [{facts.pop('level'):7}] {facts.pop('event'):{_EVENT_WIDTH}}"
    trace = facts.pop("exception", "")
    text = " ".join([head, *(f"{key}={_word(value)}" for key, value in facts.items())]).rstrip()
    return f"{text}\n{trace}" if trace else text


def _word(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if not text or " " in text or not text.isprintable() else text


def _is_journal() -> bool:
    """Whether stderr goes to the journal: systemd names the device and inode of the stream that it opened for it."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # a stream that is no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class OutageLog:
    """Logs an outage once and its end once, however often the operation is tried in between."""

    def __init__(self, logger: Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._failures = 0
        self.reason = ""  # the latest error while it lasts

    @property
    def failing(self) -> bool:
        return self._failures > 0

    def failed(self, error: object) -> None:
        self.reason = str(error).strip()[:500]
        if self._failures == 0:
            self._logger.warning(f"{self._what}-lost", error=self.reason)
        self._failures += 1

    def worked(self) -> None:
        if self._failures:
            self._logger.info(f"{self._what}-back", failures=self._failures)
        self._failures = 0
        self.reason = ""
