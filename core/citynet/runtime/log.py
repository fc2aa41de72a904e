"""Logging: structlog, console on a terminal, JSON lines elsewhere. Event names are constants in kebab-case."""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog

from citynet.runtime.settings import LogSettings


def configure(settings: LogSettings, role: str) -> None:
    """Set up logging for this process; every line carries `role`."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger; `name` tells the module."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(module=name))


class OutageLog:
    """Logs an outage once and its end once, however often the operation is tried in between."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger, what: str) -> None:
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
