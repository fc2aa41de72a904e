"""Where a city keeps its history and its rules. The database's side registers itself as entry point ``citynet.rulestore``, so
that this room knows of no database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from citynet.errors import CitynetError
from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.gate import ArmedRule, Decision, KeptScore
from citynet_rules.proof.history import History, Span
from citynet_rules.proof.score import Score
from citynet_rules.spec import RuleSet

GROUP = "citynet.rulestore"


class RuleStore(Protocol):
    """A city's store, open."""

    @property
    def history(self) -> History:
        """The stored readings."""
        ...

    def extent(self) -> tuple[int, int] | None:
        """Times of the oldest and newest stored reading, µs; None without readings."""
        ...

    def alerts(self, span: Span, rules: Collection[str] | None) -> list[Alert]:
        """Alerts that were in force within a span, of these rules or of all."""
        ...

    def rule_files(self) -> list[Path]:
        """The files that a worker with these settings reads."""
        ...

    def kept_scores(self, fingerprints: Collection[str]) -> Mapping[str, KeptScore]:
        """The last kept scores, by fingerprint."""
        ...

    def keep_scores(self, scores: Mapping[str, Score], rules: RuleSet, *, span: Span, truth: str, author: str) -> None:
        """Keep the score of each of these rules; `truth` is the digest of what they were scored against."""
        ...

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Write down who arms what, all or none."""
        ...

    def armed(self) -> list[ArmedRule]:
        """What workers evaluate."""
        ...


Opener = Callable[[Path | None], AbstractContextManager[RuleStore]]


def open_store(config: Path | None) -> AbstractContextManager[RuleStore]:
    """The store that the settings name.

    Raises:
        CitynetError: the server's packages are not installed, or there is no database.
    """
    for point in entry_points(group=GROUP):
        try:
            opener: Opener = point.load()
        except ModuleNotFoundError as error:
            raise CitynetError(f"this needs {error.name}: pip install 'citynet[server]'") from None
        return opener(config)
    raise CitynetError("this needs a database's packages: pip install 'citynet[server]'")
