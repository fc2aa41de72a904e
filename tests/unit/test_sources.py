"""Topics of others: which filters are good, which overlap, whose a topic is, and which content type counts."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from citynet import formats
from citynet.errors import ConfigError
from citynet.runtime.settings import load
from citynet_ingest.settings import IngestSettings
from citynet_ingest.sources import Sources, SourceSettings, content_type

CHIRPSTACK = "application/+/device/{device}/event/up"


def source(topic: str) -> SourceSettings:
    return SourceSettings(topic=topic, format="senml")


def load_sources(folder: Path, *topics: str, format: str = "senml") -> IngestSettings:  # noqa: A002
    file = folder / "citynet.toml"
    tables = [f'[[ingest.sources]]\ntopic = "{topic}"\nformat = "{format}"\n' for topic in topics]
    file.write_text("\n".join(tables), encoding="utf-8")
    return load(IngestSettings, file)


@pytest.mark.parametrize(
    ("topic", "complaint"),
    [
        ("application/+/up", "one level must be {device}"),
        ("a/{device}/{device}", "one level must be {device}"),
        ("a/x-{device}", "one level must be {device}"),
        ("a/{device}/{x}", "a level of its own"),
        ("a/#/{device}", "# may only be the last level"),
        ("a/{device}/b#", "# may only be the last level"),
        ("a/{device}/b+", "+ must be a level of its own"),
        ("+/{device}", "the first level must be a plain word"),
        ("/{device}", "the first level must be a plain word"),
        ("$SYS/{device}", "the first level must be a plain word"),
        ("citynet/v1/dev/{device}", "the platform's own"),
    ],
)
def test_filters_that_are_refused(tmp_path: Path, topic: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load_sources(tmp_path, topic)


def test_an_unknown_format_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'xml'; known: .*chirpstack"):
        load_sources(tmp_path, CHIRPSTACK, format="xml")


def test_overlapping_sources_are_refused_by_name(tmp_path: Path) -> None:
    assert len(load_sources(tmp_path, CHIRPSTACK, "factory/{device}/#").sources) == 2
    with pytest.raises(ConfigError, match=r"'application/\+/device/.*' and 'application/\{device\}/#' overlap"):
        load_sources(tmp_path, CHIRPSTACK, "application/{device}/#")


def test_a_topic_finds_its_device_format_and_shard() -> None:
    sources = Sources([SourceSettings(topic=CHIRPSTACK, format="chirpstack"), source("factory/{device}/#")])
    assert [found.pattern for found in sources.filters()] == ["application/+/device/+/event/up", "factory/+/#"]
    shard = zlib.crc32(b"0101") % 64
    assert sources.find("application/7/device/0101/event/up") == ("0101", formats.CHIRPSTACK, shard)
    assert sources.find("factory/0101") == ("0101", formats.SENML, shard)
    assert sources.find("factory/0101/a/b") == ("0101", formats.SENML, shard)
    for topic in ("application/7/device/0101/event/join", "application/7/device/0101/event/up/x", "other/0101"):
        assert sources.find(topic) == ("", "", zlib.crc32(topic.encode()) % 64)


def test_a_content_type_that_says_something_counts() -> None:
    for given_type in ("", "application/json", "Application/JSON; charset=utf-8", "text/plain"):
        assert content_type(given_type, formats.CHIRPSTACK) == formats.CHIRPSTACK
    assert content_type(formats.SENML, formats.CHIRPSTACK) == formats.SENML
    assert content_type("text/html", formats.CHIRPSTACK) == "text/html"


levels = st.lists(st.sampled_from(["a", "b", "+"]), max_size=3)


@st.composite
def filters(draw: st.DrawFn) -> SourceSettings:
    before, after = draw(levels), draw(levels)
    return source("/".join(["x", *before, "{device}", *after, *draw(st.sampled_from([[], ["#"]]))]))


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a loaded machine
@given(filters(), filters(), st.lists(st.sampled_from(["a", "b", "c"]), max_size=8))
def test_no_topic_is_of_two_sources_that_do_not_overlap(
    one: SourceSettings, other: SourceSettings, rest: list[str]
) -> None:
    topic = ["x", *rest]
    if one.matches(topic) and other.matches(topic):
        assert one.overlaps(other)
        assert other.overlaps(one)
