"""The database as the store that ``citynet rules`` works on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest.cli_db import connect
from citynet_ingest.rearm import files_of
from citynet_ingest.settings import IngestSettings
from citynet_ingest.store import arming
from citynet_ingest.store.history import Connection, DatabaseHistory
from citynet_ingest.store.parts import READING, extent, parts
from citynet_ingest.store.server import Server, probe
from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.gate import ArmedRule, Decision, KeptScore
from citynet_rules.proof.history import Span
from citynet_rules.proof.score import Score
from citynet_rules.spec import RuleSet


class DatabaseRuleStore:
    """History and rules of one database."""

    def __init__(
        self,
        connection: Connection,
        server: Server,
        settings: IngestSettings,
        another: Callable[[], AbstractContextManager[Connection]] | None = None,
    ) -> None:
        """`another` makes a further connection to the same database."""
        self._connection = connection
        self._server = server
        self._settings = settings
        self.history = DatabaseHistory(connection, server, another=another)

    def extent(self) -> tuple[int, int] | None:
        found = extent(
            self._connection, [part for part in parts(self._connection, self._server) if part.table == READING]
        )
        return None if found is None else (round(found[0].timestamp() * 1e6), round(found[1].timestamp() * 1e6))

    def alerts(self, span: Span, rules: Collection[str] | None) -> list[Alert]:
        return self.history.alerts(span, rules)

    def rule_files(self) -> list[Path]:
        return files_of(self._settings)

    def kept_scores(self, fingerprints: Collection[str]) -> Mapping[str, KeptScore]:
        return arming.kept_scores(self._connection, fingerprints)

    def keep_scores(self, scores: Mapping[str, Score], rules: RuleSet, *, span: Span, truth: str, author: str) -> None:
        arming.keep_scores(self._connection, scores, rules, span=span, truth=truth, author=author)

    def decide(self, decisions: Iterable[Decision]) -> None:
        arming.decide(self._connection, decisions)

    def armed(self) -> list[ArmedRule]:
        return arming.armed(self._connection)


@contextmanager
def open_store(config: Path | None) -> Iterator[DatabaseRuleStore]:
    """The store in the database that the settings name. CitynetError if there is none."""
    settings = load(IngestSettings, config)
    database = load(DatabaseSettings, config)
    with connect(database) as connection:
        yield DatabaseRuleStore(connection, probe(connection), settings, lambda: connect(database))
