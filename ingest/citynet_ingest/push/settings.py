"""Settings of the HTTP front: table ``[push]``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, field_validator, model_validator

from citynet import formats, wire
from citynet.errors import DecodeError
from citynet.ids import check_id
from citynet.runtime.settings import Table, table_config


class PushSource(BaseModel, extra="forbid", frozen=True):
    """One source that pushes: what it speaks where its content type does not say, and whether equal bodies are one message."""

    name: str = Field(description="the source, as in POST /v1/push/{source}")
    format: str = Field(
        formats.THINGSBOARD, description="a content type, or chirpstack, senml, senml+cbor, thingsboard"
    )
    dedupe: str = Field("key", pattern="^(key|body)$", description="key: by Idempotency-Key; body: an equal body too")

    @field_validator("name")
    @classmethod
    def _check_name(cls, text: str) -> str:
        try:
            return check_id(text, "name")
        except DecodeError as error:
            raise ValueError(error.detail) from None

    @field_validator("format")
    @classmethod
    def _check_format(cls, text: str) -> str:
        return formats.content_type_of(text)


class PushSettings(Table):
    """The HTTP front: where it listens, how long an answer may take, and how much may wait."""

    model_config = table_config("push")

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback only with TLS")
    port: int = Field(8090, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    tls_cert_file: Path | None = Field(None, description="certificate chain; unset: plain HTTP, for a proxy in front")
    tls_key_file: Path | None = Field(None, description="private key of `tls_cert_file`")
    answer_s: float = Field(
        10.0, gt=0, le=300, description="how long a request waits for its COMMIT, then 503; it may still be stored"
    )
    read_s: float = Field(15.0, gt=0, le=300, description="how long a body may take to arrive, then 408")
    stop_s: float = Field(5.0, gt=0, le=30, description="how long a stop waits for requests in flight")
    inflight_max: int = Field(512, ge=1, le=10_000, description="requests at once; one more gets 503")
    inflight_per_source_max: int = Field(128, ge=1, le=10_000, description="requests of one source; one more gets 429")
    inflight_bytes_max: int = Field(
        64 << 20, ge=2 << 20, description="bytes of bodies at once; a request that does not fit gets 503"
    )
    push_bytes_max: int = Field(
        formats.BYTES_MAX, ge=1_024, le=formats.BYTES_MAX, description="largest body of /v1/push, then 413"
    )
    batch_bytes_max: int = Field(
        wire.BYTES_MAX, ge=1_024, le=wire.BYTES_MAX, description="largest body of /v1/batches, then 413"
    )
    token_cache_s: float = Field(5.0, ge=0, le=60, description="a verified token is believed this long")
    metrics_port: int = Field(0, ge=0, le=65_535, description="Prometheus metrics on loopback; 0: none.")
    sources: list[PushSource] = Field(
        default_factory=list,
        max_length=1_000,
        description="tables [[push.sources]] with name, format and dedupe; a source without one speaks by content type",
    )

    @field_validator("sources")
    @classmethod
    def _check_names(cls, sources: list[PushSource]) -> list[PushSource]:
        names = [source.name for source in sources]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each source once; repeated: {', '.join(repeated)}")
        return sources

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        return self
