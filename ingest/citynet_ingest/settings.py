"""Settings of the ingest tier: table ``[ingest]``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from citynet.formats import THINGSBOARD, is_known
from citynet.ids import SHARDS
from citynet.runtime.settings import Table, table_config
from citynet_ingest.lanes import LANES, dealt, lanes_of
from citynet_ingest.lateness import ENTRIES_MAX, LatenessSettings
from citynet_ingest.sources import SOURCES_MAX, SourceSettings, check_apart


class IngestSettings(Table):
    """How a worker takes, groups and commits. Every limit names what happens at it."""

    model_config = table_config("ingest")

    shards: str = Field("0-63", description="Shards to own, 'LOW-HIGH': whole lanes of 8, such as 0-31.")
    workers: int = Field(1, ge=1, le=LANES, description="Processes that share the shards, each with whole lanes.")
    receive_maximum: int = Field(
        2_000,
        ge=1,
        le=65_535,
        description="Messages in flight without PUBACK, in each of up to 8 sessions; the broker queues the rest.",
    )
    inflight_bytes_max: int = Field(
        112 << 20,
        ge=2 << 20,
        description="Memory that messages in flight take; above it the socket is not read until a commit is done.",
    )
    commit_readings_max: int = Field(700_000, ge=1, description="Readings in one transaction; more wait for the next.")
    commit_messages_max: int = Field(5_000, ge=1, description="Messages in one transaction; more wait for the next.")
    commit_statement_timeout_s: float = Field(
        60.0, gt=0, description="A statement slower than this is rolled back and retried."
    )
    commit_timeout_s: float = Field(
        90.0,
        gt=0,
        description="A try of a commit that takes longer, with a database that answers no more, has its connection cut "
        "and is retried; above commit_statement_timeout_s.",
    )
    retry_s_max: float = Field(
        5.0, gt=0, description="Longest pause between tries while the database or broker is away."
    )
    keep_alive_s: int = Field(
        20, ge=2, le=600, description="MQTT keep-alive; a dead link is noticed in 1.5 times this."
    )
    session_expiry_s: int = Field(
        7 * 86_400, ge=60, description="How long the broker keeps our session while we are away."
    )
    direct_content_type: str = Field(
        THINGSBOARD, description="Format of direct devices that send no MQTT 5 content type."
    )
    message_key_s: int = Field(
        6 * 3_600,
        ge=60,
        description="How long a message's own key (idempotency key, deduplicationId) is remembered: a copy that comes"
        " within this time is recognised.",
    )
    sources: list[SourceSettings] = Field(
        default_factory=list,
        max_length=SOURCES_MAX,
        description="Topics of others that are taken too: tables [[ingest.sources]] with topic (a filter with one level"
        " {device}) and format (a content type, or one of: chirpstack, senml, senml+cbor, thingsboard).",
    )
    snapshot_s: float = Field(30.0, gt=0, description="How often the rules engine's state is stored.")
    settle_s: float = Field(
        10.0,
        ge=0,
        description="How far the clock of 'no data' rules stays behind, for readings still on their way.",
    )
    settle_after_connect_s: float = Field(
        30.0,
        ge=0,
        description="How long after a reconnect nobody is called silent: their readings may be queued.",
    )
    hindsight_s: float = Field(
        10.0,
        gt=0,
        description="How long after a series' last late reading what came late is judged in hindsight; at most 30 times this"
        " after the first.",
    )
    lateness: list[LatenessSettings] = Field(
        default_factory=list,
        max_length=ENTRIES_MAX,
        description="Series whose readings may come out of order: tables [[ingest.lateness]] with devices and metrics (globs)"
        " and bound_s. Their rules wait for the bound; the first entry that names a series counts, others have none.",
    )
    rules: list[Path] = Field(default_factory=list, description="Rule files besides the shipped packs.")
    shipped_rules: bool = Field(True, description="Arm the rule packs that come with citynet.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Prometheus metrics on loopback; 0: none. Of several workers the first; the next ports are the others'.",
    )

    @field_validator("shards")
    @classmethod
    def _check_shards(cls, text: str) -> str:
        lanes_of(parse_shards(text))
        return text

    @field_validator("workers")
    @classmethod
    def _check_workers(cls, workers: int, info: ValidationInfo) -> int:
        if "shards" in info.data:
            dealt(parse_shards(info.data["shards"]), workers)
        return workers

    @field_validator("direct_content_type")
    @classmethod
    def _check_content_type(cls, text: str) -> str:
        if not is_known(text):
            raise ValueError(f"unknown content type {text!r}")
        return text

    @model_validator(mode="after")
    def _check_timeouts(self) -> Self:
        if self.commit_timeout_s <= self.commit_statement_timeout_s:  # the server says why, a cut connection does not
            raise ValueError("commit_timeout_s must be above commit_statement_timeout_s")
        return self

    @field_validator("sources")
    @classmethod
    def _check_sources(cls, sources: list[SourceSettings]) -> list[SourceSettings]:
        check_apart(sources)
        return sources

    @property
    def worker(self) -> str:
        """Name of the worker: its shards."""
        owned = parse_shards(self.shards)
        return f"{owned.start:02d}-{owned.stop - 1:02d}"


def parse_shards(text: str) -> range:
    """``"0-31"`` or ``"7"`` as a range of shards. ValueError says what is wrong."""
    low, dash, high = text.partition("-")
    if not (low.isdigit() and (high.isdigit() if dash else True)):
        raise ValueError(f"{text!r} is not LOW-HIGH, such as 0-31")
    first, last = int(low), int(high if dash else low)
    if not 0 <= first <= last < SHARDS:
        raise ValueError(f"{text!r} is not within 0-{SHARDS - 1}")
    return range(first, last + 1)
