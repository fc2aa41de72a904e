"""What the api answers: the shapes, their units, and how rows become them. Times are UTC and end in ``_at``."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

LEVELS = {1: "blue", 2: "yellow", 3: "orange", 4: "red"}


def finite(value: float | None) -> float | None:
    """JSON knows neither NaN nor infinity: they become null."""
    return value if value is not None and math.isfinite(value) else None


Number = Annotated[float | None, BeforeValidator(finite)]
# Epochs are 64-bit; a JavaScript number holds 53 bits, so they travel as text.
Epoch = Annotated[str, BeforeValidator(str)]
Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(description="cursor of the next page; null on the last one")


class Alert(BaseModel):
    """An alert: a rule's limit violated at one object, from raise to clear."""

    id: str
    rule_id: str
    rule_version: str
    domain: str = Field(description="gas, water, drainage, device …")
    object: str = Field(description="the device")
    series_id: int
    metric: str
    unit: str | None = Field(description="unit of `value` and `limit_value`")
    rule_kind: str | None = Field(description="limit, or stale: no data for `value` seconds")
    kind: str | None = Field(description="kind of the device")
    district: str | None
    lon: float | None = Field(description="WGS 84")
    lat: float | None = Field(description="WGS 84")
    state: Literal["open", "cleared"]
    mode: Literal["live", "shadow"] = Field(description="shadow: its rule is on trial, nobody is to act on it")
    verdict: Literal["event", "device", "undecided"] = Field(description="sensor fault or city event")
    audience: Literal["people", "maintenance"] = Field(description="whom it is for; only `people` is public safety")
    verdict_at: datetime | None = Field(description="event time since which the verdict holds; null: nobody judged")
    verdict_zh: str
    verdict_en: str
    level: int = Field(description="in force, or last: 1 blue, 2 yellow, 3 orange, 4 red")
    level_name: str
    level_max: int = Field(description="highest level so far")
    raised_at: datetime = Field(description="event time")
    changed_at: datetime = Field(description="event time of the last transition")
    cleared_at: datetime | None
    recorded_at: datetime = Field(description="when the server stored it")
    known_at: datetime | None = Field(
        description="of an alert found in hindsight, over already: when the late readings that tell of it came; else null"
    )
    value: Number = Field(description="in `unit`, of the last transition")
    limit_value: Number
    title_zh: str
    title_en: str
    text_zh: str
    text_en: str
    standard: str | None = Field(description="the standard that the limit is taken from")
    edition: str | None
    clause: str | None
    standard_status: str | None = Field(
        description="P read in the primary text, Q quoted by another source, C seen in code or data, U unverified, D design"
    )
    acked_at: datetime | None
    acked_by: str | None
    ack_comment: str | None


class Transition(BaseModel):
    """A change of an alert, with the evidence that justifies it."""

    id: int = Field(description="ascending in order of commit")
    kind: Literal["raise", "escalate", "deescalate", "clear", "supersede", "ack", "revise", "verdict"]
    level: int
    level_name: str
    at: datetime = Field(
        description="event time; for an acknowledgement the time of the act, for revise when the late readings came"
    )
    recorded_at: datetime = Field(description="when the server stored it")
    actor: str | None = Field(description="who acted; null for the engine")
    comment: str | None
    value: Number
    limit_value: Number
    evidence: dict[str, Any]
    text_zh: str
    text_en: str


class AlertDetail(Alert):
    """An alert with all that explains it."""

    gateway: str = Field(description="the gateway the device is heard through; the device itself without one")
    rule: dict[str, Any] | None = Field(description="the rule as it was armed, guidance included")
    transitions: list[Transition]


class AlertPage(Page[Alert]):
    """Alerts, and where the stream of transitions stood before they were read."""

    as_of: int = Field(description="follow /v1/alerts/stream?after=… from here and nothing is missed")


class StreamedTransition(BaseModel):
    """Data of an event of the stream."""

    transition: Transition
    alert: Alert = Field(description="the alert as it is now, which may be further on than the transition")


class Acknowledgement(BaseModel):
    """An operator takes notice of an alert."""

    comment: str = Field("", max_length=500, pattern=r"^[^\x00]*$", description="what was seen or done; may be empty")


class Me(BaseModel):
    """Owner of the token."""

    name: str
    role: str
    expires_at: datetime | None


class Latest(BaseModel):
    """The newest reading of a series."""

    at: datetime
    value: Number = Field(description="null for NaN")
    quality: int
    quality_text: str


class Series(BaseModel):
    """A series: one metric of one device."""

    id: int
    device: str
    metric: str
    unit: str | None
    low: float | None = Field(description="physical range of the sensor")
    high: float | None
    interval_s: float | None = Field(description="seconds between readings, as registered")
    registered: bool
    first_seen_at: datetime


class SeriesLatest(Series):
    """A series with its newest reading."""

    latest: Latest | None


class Device(BaseModel):
    """A device, heard of or registered."""

    name: str
    gateway: str
    kind: str | None
    district: str | None
    lon: float | None = Field(description="WGS 84")
    lat: float | None = Field(description="WGS 84")
    registered: bool
    first_seen_at: datetime
    series_count: int
    open_alerts: int


class DeviceDetail(Device):
    """A device with its series and their newest readings."""

    series: list[SeriesLatest]


class Registered(BaseModel):
    """What a registration did."""

    devices: int
    devices_new: int
    series: int
    series_new: int


class District(BaseModel):
    """A district."""

    name: str
    label: str | None
    outline: list[tuple[float, float]] | None = Field(description="outer ring: longitude, latitude, WGS 84")


class Asset(BaseModel):
    """Something that stands somewhere, with the devices at it."""

    name: str
    kind: str
    label: str | None
    district: str | None
    lon: float | None = Field(description="WGS 84")
    lat: float | None = Field(description="WGS 84")
    devices: list[str]


class Edge(BaseModel):
    """What joins two assets, in the direction of flow."""

    network: str
    name: str
    kind: str = Field(description="pipe, pump, valve ...")
    start: str = Field(validation_alias="from", serialization_alias="from", description="the asset that it flows from")
    end: str = Field(validation_alias="to", serialization_alias="to", description="the asset that it flows to")
    length_m: float | None
    line: list[tuple[float, float]] | None = Field(description="longitude, latitude, from start to end")


class TopologyRegistered(BaseModel):
    """What a registration of topology did."""

    districts: int
    assets: int
    edges: int
    edges_removed: int = Field(description="that the document no longer has in the networks it names")


class Reading(BaseModel):
    """One reading."""

    at: datetime
    value: Number = Field(description="in the unit of the series; null for NaN")
    quality: int = Field(description="quality code, one byte")
    quality_text: str = Field(description="the code in words, such as bad+late")


class Bucket(BaseModel):
    """The readings of one interval. Those that are bad or not finite count, but take no part in the figures."""

    at: datetime = Field(description="start of the interval")
    count: int
    usable: int = Field(description="how many are finite and not of grade bad: those the figures are of")
    min: float | None
    max: float | None
    avg: Number = Field(description="null without usable readings")
    first: float | None
    last: float | None


class Ranged(BaseModel):
    """The range that was answered, and from which rows."""

    from_at: datetime = Field(description="with buckets the range asked for is widened to whole ones")
    to_at: datetime
    bucket: str = Field(description="raw, or the width of a bucket")
    bucket_s: int | None
    source: Literal["raw", "minute", "hour"] = Field(
        description="coarsest rows it is made of: readings, or rollups of 1 min or 1 h (with the open end from finer ones)"
    )


class Readings(Ranged):
    """Readings of a series in [from, to): raw ones a page at a time, or buckets all at once."""

    series: Series
    readings: list[Reading] = Field(description="ascending in time; empty with buckets")
    buckets: list[Bucket] = Field(description="ascending in time, without empty ones; empty with raw")
    next: str | None


class SeriesReadings(BaseModel):
    """Readings of one of many series."""

    series: Series
    readings: list[Reading]
    buckets: list[Bucket]


class ManyReadings(Ranged):
    """Readings of many series over one range, all raw or all in buckets of one width."""

    items: list[SeriesReadings] = Field(description="in the order asked for")


class LatestReading(Latest):
    """The newest reading of a series, and how old it is."""

    age_s: float = Field(description="by the database's clock; negative if the source's clock is ahead")


class PlacedLatest(BaseModel):
    """A series of an area with its newest reading."""

    series_id: int
    device: str
    kind: str | None = Field(description="kind of the device")
    district: str | None
    lon: float | None = Field(description="WGS 84")
    lat: float | None = Field(description="WGS 84")
    metric: str
    unit: str | None
    latest: LatestReading | None = Field(description="null for a series that never had a reading")


class Expectation(BaseModel):
    """Readings expected against readings received."""

    received: int = Field(description="readings of any quality")
    expected: int | None = Field(description="null where no interval is known")
    completeness: float | None = Field(description="0 to 1; surplus of one series never hides what another lacks")


class SeriesCompleteness(Expectation):
    """Completeness of one series."""

    series_id: int
    device: str
    district: str | None
    metric: str
    interval_s: float | None = Field(description="seconds between readings: registered, or estimated from the readings")
    interval_from: Literal["registered", "estimated"] | None
    newest_at: datetime | None


class GroupCompleteness(Expectation):
    """Completeness of the series that share a district, metric or device."""

    group: str | None = Field(description="name of the district, metric or device; null for devices without a district")
    series: int
    estimated: int = Field(description="series whose interval is an estimate")
    unknown: int = Field(description="series without any interval; they count in `received` only")


class Completeness(BaseModel):
    """Completeness over a range: a page of series, or groups all at once."""

    from_at: datetime = Field(
        description="the range asked for, on whole minutes, from 6 h on whole hours; not beyond now"
    )
    to_at: datetime
    by: Literal["series", "district", "metric", "device"]
    series: list[SeriesCompleteness]
    groups: list[GroupCompleteness]
    total: GroupCompleteness = Field(description="of this page, or of all groups")
    next: str | None


class Stream(BaseModel):
    """One stream and epoch of a gateway: what is stored, and what is still to come."""

    stream: str
    epoch: Epoch
    seq: int
    claimed: int = Field(description="highest number that the gateway said it had accepted")
    backlog: int = Field(description="claimed but not yet here")
    stored: int
    dead_lettered: int
    lost: int
    updated_at: datetime


class Gateway(BaseModel):
    """A gateway and how its deliveries stand."""

    id: str
    online: bool
    first_seen_at: datetime
    status_at: datetime | None
    last_batch_at: datetime | None
    version: str | None
    clock: str | None = Field(description="synced or unsynced")
    full: bool | None = Field(description="true while the spool refuses")
    rejected: int | None
    spool_bytes: int | None
    spool_bytes_max: int | None
    spool_fill: float | None = Field(description="0 to 1")
    backlog: int = Field(description="readings accepted there and not yet stored here, all streams and epochs")
    canary_at: datetime | None = Field(description="when it accepted the newest stored reading of its own")
    delay_s: float | None = Field(description="how long that reading took to be stored, by both machines' clocks")
    cloned_at: datetime | None = Field(description="when two machines were last seen under this id")
    streams: list[Stream] = Field(description="the twenty most recent streams and epochs")


class SystemEvent(BaseModel):
    """Something wrong with the system itself, over the last 24 hours."""

    kind: str = Field(description="broker_dropped, gateway_cloned, rules_refused, rules_spread or rule_failed")
    object: str = Field(description="which broker, gateway, worker or rule")
    first_at: datetime
    last_at: datetime
    count: int = Field(description="messages dropped, or sightings")
    detail: str


class Summary(BaseModel):
    """The city in one look."""

    as_of_at: datetime = Field(description="the database's clock")
    open_by_level: dict[str, int]
    open_by_domain: dict[str, int]
    unacked: int = Field(description="open alerts that nobody acknowledged")
    gateways_online: int
    gateways_total: int
    last_batch_at: datetime | None = Field(description="newest batch of any gateway")
    system_events: list[SystemEvent] = Field(description="newest first, at most twenty")
    readings_last_minute: int | None = Field(
        description="stored in the last minute; null until it was watched for a while"
    )
    readings_per_s: float | None


class DeadLetter(BaseModel):
    """Something that arrived and could not be stored as a reading."""

    id: int
    at: datetime
    last_at: datetime
    times: int
    topic: str
    source: str | None
    stream: str | None
    epoch: str | None
    seq: int | None
    records: int
    reason: str
    place: str
    detail: str
    content_type: str | None
    payload_bytes: int
    redrives: int = Field(description="how often it was tried again")
    redrive_error: str | None = Field(description="why the last try failed")
    redriven_at: datetime | None = Field(description="when a redrive stored it; then it is no dead letter any more")
    payload_start: str = Field(description="the first 200 bytes, as text where they are, else as \\xNN")


class Loss(BaseModel):
    """Readings that are declared lost."""

    id: int
    at: datetime
    gateway: str
    stream: str
    epoch: Epoch
    first: int
    last: int
    count: int
    reason: str


class Health(BaseModel):
    """The process lives."""

    status: Literal["alive"]


class Ready(BaseModel):
    """The process can do its work."""

    status: Literal["ready"]
    migration: int = Field(description="number of the database's newest migration")


def alert_fields(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an alert query, with the fields that follow from it."""
    return {**row, "state": "open" if row["cleared_at"] is None else "cleared", "level_name": LEVELS[row["level"]]}


def transition_fields(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a transition, with the fields that follow from it."""
    return {**row, "level_name": LEVELS[row["level"]]}


def streamed(row: dict[str, Any]) -> StreamedTransition:
    """A row of ``transition_after``: the transition's columns carry the prefix ``t_``."""
    transition = {key.removeprefix("t_"): value for key, value in row.items() if key.startswith("t_")}
    return StreamedTransition(transition=Transition(**transition_fields(transition)), alert=Alert(**alert_fields(row)))
