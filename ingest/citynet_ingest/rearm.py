"""Rules anew while a worker runs: asked for on its event loop, done by its committer when nothing is in flight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from citynet_ingest.settings import IngestSettings
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.spec import RuleSet, library_paths


class Offer:
    """What was read last and not looked at yet: rules, or why there are none."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rules: RuleSet | None = None
        self._problems: list[str] = []

    def rules(self, rules: RuleSet) -> None:
        """These are to be armed."""
        with self._lock:
            self._rules, self._problems = rules, []

    def problems(self, problems: Sequence[str]) -> None:
        """The files hold mistakes; what is armed goes on."""
        with self._lock:
            self._rules, self._problems = None, list(problems)

    def take(self) -> tuple[RuleSet | None, list[str]]:
        """What there is, once."""
        with self._lock:
            found = self._rules, self._problems
            self._rules, self._problems = None, []
        return found


def successor(engine: Engine, after: Engine, series: Sequence[SeriesInfo]) -> Engine:
    """`after`, a fresh engine of other rules, knowing what `engine` knows: rules that decide as before go on where they
    stand."""
    after.bind(series)
    after.restore(engine.snapshot())
    return after


def files_of(settings: IngestSettings) -> list[Path]:
    """The rule files of a worker: the shipped packs unless they are off, and its own."""
    return [*(library_paths() if settings.shipped_rules else []), *settings.rules]
