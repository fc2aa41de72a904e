"""Every story of the folder `stories`, end to end, and what the language does with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedMosquitto
from tests.e2e.story import Story, parse, readings_of
from tests.ingest import GatewayPeer, ingest_running, now_us

STORIES = sorted(Path(__file__).with_name("stories").glob("*.story"))
AGO_US = 3_000_000_000  # recovery without a snapshot reads an hour back


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, folder: Path, dsn: str) -> None:
    rules = folder / "city.toml"
    start_us = (now_us() - AGO_US) // 1_000_000 * 1_000_000
    settings = {"rules": [str(rules)], "shipped_rules": False, "hindsight_s": 0.3, "snapshot_s": 0.5}
    with EmbeddedMosquitto(folder / "broker") as broker:
        lines = parse(path.read_text(encoding="utf-8"))
        peer = GatewayPeer(broker.port)
        try:
            story = Story(lines, peer, dsn, start_us)
            story.write_rules(rules)
            with ingest_running(folder, broker, dsn, settings) as worker:
                story.play(worker, rules)
        finally:
            peer.close()


def test_a_line_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="line 2: 'raise' is neither a time nor one of ack, again, alert"):
        parse("# fine\nraise x\n")
    with pytest.raises(ValueError, match="line 1: SECONDS DEVICE/METRIC VALUE was expected"):
        readings_of(parse("0..10/5 well 4")[0], 0)


def test_a_line_says_every_step() -> None:
    (line,) = parse("-10..10/5 well/ch4_lel 4  # a comment")
    assert [(r.time_us // 1_000_000, r.device, r.metric, r.value) for r in readings_of(line, 60_000_000)] == [
        (second, "well", "ch4_lel", 4.0) for second in (50, 55, 60, 65, 70)
    ]
