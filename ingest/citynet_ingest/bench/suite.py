"""The bench table: its lines by number, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from citynet_ingest.bench.disk import disk
from citynet_ingest.bench.engine import library, limits, pairs
from citynet_ingest.bench.latency import alerts, chart
from citynet_ingest.bench.memory import memory
from citynet_ingest.bench.replay import replayed
from citynet_ingest.bench.result import Line
from citynet_ingest.bench.stage import Stage
from citynet_ingest.bench.throughput import batches, singles, straight

LINES: dict[int, tuple[str, Callable[[Stage], Line]]] = {
    1: ("batches, MQTT to COMMIT", batches),
    2: ("one reading a message", singles),
    3: ("bytes on disk", disk),
    4: ("sensor to alert", alerts),
    5: ("chart under load", chart),
    6: ("memory, and a database that is down", memory),
    7: ("a straight line", straight),
    8: ("rules: limits", limits),
    9: ("rules: the shipped packs", library),
    10: ("rules: 200,000 pairs", pairs),
    11: ("rules: replay", replayed),
}
RULES = (8, 9, 10, 11)


def run(stage: Stage, numbers: Iterable[int]) -> Iterator[Line]:
    """Measure these lines in order, each in a database of its own."""
    for number in numbers:
        title, measure = LINES[number]
        stage.say(f"{number}: {title}")
        yield measure(stage)
