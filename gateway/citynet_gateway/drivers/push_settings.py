"""Settings of the HTTP push driver: table ``[gateway.push]``. It runs where a port is given."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an address of this machine, 0.0.0.0 for all") from None
    return text


class PushSettings(BaseModel, extra="forbid", frozen=True):
    """Devices that push over HTTP; off without a port."""

    host: Annotated[str, AfterValidator(_address)] = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65_535, description="TCP port to listen on; 0 switches it off")
    token_file: Path | None = Field(
        None,
        description="file of bearer tokens: a token a line, behind it the devices it is for as shell patterns; "
        "unset: none is asked for, which is allowed on loopback only",
    )
    tls_cert_file: Path | None = Field(None, description="certificate; with it the port speaks HTTPS")
    tls_key_file: Path | None = Field(None, description="private key of tls_cert_file")
    body_bytes_max: int = Field(262_144, ge=1_024, le=262_144, description="largest body")
    connections_max: int = Field(64, ge=1, le=1_024, description="connections at a time")
    read_s: float = Field(10.0, ge=0.1, le=300, description="time for a whole request to arrive")
    answer_s: float = Field(10.0, ge=0.1, le=300, description="longest wait for the sync; then 503")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.port and self.token_file is None and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError("token_file is needed unless host is a loopback address")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        return self
