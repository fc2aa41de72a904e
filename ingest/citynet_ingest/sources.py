"""Sources: whose topics outside ``citynet/v1/`` are taken, which level of them names the device, and what format they speak."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import mqtt5
from pydantic import BaseModel, Field, field_validator

from citynet import formats, topics
from citynet.errors import DecodeError
from citynet.ids import shard_of_text

SOURCES_MAX = 32
DEVICE = "{device}"
_REMEMBERED = 65_536
# What HTTP libraries and platforms write when they mean nothing by it: a configured format knows better.
_GENERIC = frozenset({"", "application/json", "application/cbor", "application/octet-stream", "text/plain"})


class SourceSettings(BaseModel, extra="forbid", frozen=True):
    """Topics of somebody else, with what they carry."""

    topic: str = Field(description="topic filter; `+` is any level, one level is {device}, a last `#` any rest")
    format: str = Field(description="a content type, or one of: chirpstack, senml, senml+cbor, thingsboard")

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, text: str) -> str:
        levels = text.split("/")
        if levels.count(DEVICE) != 1:
            raise ValueError(f"one level must be {DEVICE}, such as application/+/device/{DEVICE}/event/up")
        if any("{" in level or "}" in level for level in levels if level != DEVICE):
            raise ValueError(f"{DEVICE} must be a level of its own")
        if "#" in text and (text.count("#") > 1 or levels[-1] != "#"):
            raise ValueError("# may only be the last level")
        if any("+" in level and level != "+" for level in levels):
            raise ValueError("+ must be a level of its own")
        if levels[0] in ("", "+", "#", DEVICE) or levels[0].startswith("$"):
            raise ValueError("the first level must be a plain word: it keeps apart whose topics these are")
        if levels[0] == topics.ROOT.partition("/")[0]:
            raise ValueError(f"{levels[0]}/ is the platform's own")
        return text

    @field_validator("format")
    @classmethod
    def _check_format(cls, text: str) -> str:
        return formats.content_type_of(text)

    def matches(self, levels: Sequence[str]) -> bool:
        """Whether a topic with these levels is one of this source's."""
        own = self.topic.split("/")
        if own[-1] == "#":
            own = own[:-1]
            levels = levels[: len(own)]
        return len(own) == len(levels) and all(
            mine in ("+", DEVICE, level) for mine, level in zip(own, levels, strict=True)
        )

    def overlaps(self, other: SourceSettings) -> bool:
        """Whether a topic could be both this source's and the other's."""
        ours, theirs = self.topic.split("/"), other.topic.split("/")
        for mine, its in zip(ours, theirs, strict=False):
            if "#" in (mine, its):
                return True
            if mine != its and not {mine, its} & {"+", DEVICE}:
                return False
        longer = max(ours, theirs, key=len)
        return len(ours) == len(theirs) or longer[min(len(ours), len(theirs)) :] == ["#"]


def check_apart(sources: Sequence[SourceSettings]) -> None:
    """ValueError, naming both, if a topic could belong to two sources."""
    for one, other in combinations(sources, 2):
        if one.overlaps(other):
            raise ValueError(f"{one.topic!r} and {other.topic!r} overlap: a topic could be of either")


def content_type(given: str, configured: str) -> str:
    """The content type that counts: what the message says, unless it says nothing in particular."""
    return configured if formats.bare(given) in _GENERIC else given


class Sources:
    """The configured sources of a worker."""

    def __init__(self, sources: Sequence[SourceSettings]) -> None:
        self._sources = tuple(sources)
        self.find = lru_cache(_REMEMBERED)(self._find)  # a device publishes on one topic all its life

    def filters(self) -> list[mqtt5.TopicFilter]:
        """What to subscribe to besides our own topics. Every worker hears every source and takes what is its shards'."""
        return [
            mqtt5.TopicFilter(
                source.topic.replace(DEVICE, "+"),
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
                retain_as_published=False,
            )
            for source in self._sources
        ]

    def _find(self, topic: str) -> tuple[str, str, int]:
        """(device, format, shard) of a topic that is not ours.

        The device is what stands at its level and may be no identifier; no device, no format: nobody's topic. The shard
        says who has to deal with it in any case.
        """
        levels = topic.split("/")
        for source in self._sources:
            if source.matches(levels):
                device = levels[source.topic.split("/").index(DEVICE)]
                return device, source.format, shard_of_text(device)
        return "", "", shard_of_text(topic)


def unconfigured(topic: str) -> DecodeError:
    """What is wrong with a topic that is nobody's."""
    return DecodeError("unknown-topic", "topic", f"{topic[:120]!r} is of no configured source")
