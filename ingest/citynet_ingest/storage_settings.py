"""Settings of the life of the data: table ``[storage]``. Applied by ``citynet db apply-policies``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from citynet.runtime.settings import Table, table_config

_Keep = Annotated[int, Field(ge=0, le=36_500)]
_Hours = Annotated[int, Field(ge=0, le=8_760)]


class StorageSettings(Table):
    """Chunks, compression and retention. A 0 switches a policy off."""

    model_config = table_config("storage")

    reading_keep_days: _Keep = Field(90, description="Readings older than this are dropped, whole days; 0: never.")
    minute_keep_days: _Keep = Field(
        90, description="Rollups by minute older than this are dropped; 0: never. Best as readings."
    )
    hour_keep_days: _Keep = Field(0, description="Rollups by hour older than this are dropped; 0: never.")
    dead_letter_keep_days: _Keep = Field(400, description="Dead letters not seen for this long are deleted; 0: never.")
    note_keep_days: _Keep = Field(0, description="Clock and event notes of gateways older than this go; 0: never.")
    reading_chunk_hours: _Hours = Field(
        24,
        description="Span of new chunks of readings on TimescaleDB; 0: as it is. Best a day: commits are cut by day.",
    )
    minute_chunk_hours: _Hours = Field(168, description="Span of new chunks of rollups by minute; 0: as it is.")
    hour_chunk_hours: _Hours = Field(2_160, description="Span of new chunks of rollups by hour; 0: as it is.")
    reading_columnstore_after_hours: _Hours = Field(
        24, description="TimescaleDB moves chunks of readings this old into the columnstore; 0: never."
    )
    minute_columnstore_after_hours: _Hours = Field(168, description="The same for rollups by minute; 0: never.")
    hour_columnstore_after_hours: _Hours = Field(2_160, description="The same for rollups by hour; 0: never.")
    require_rollups: bool = Field(True, description="Drop readings only when the rollups that outlive them have them.")
    drop_days_max: int = Field(
        14,
        ge=1,
        le=36_500,
        description="A run that would drop more than this of a table drops nothing of it and says so.",
    )
    lock_wait_s: float = Field(
        2.0,
        gt=0,
        le=30,
        description="How long a drop may make ingest wait at a time; then it steps back and tries again.",
    )
    lock_tries: int = Field(
        10, ge=1, le=1_000, description="Tries to get a lock before a drop is left to the next run."
    )
