"""Settings of outputs: tables ``[[gateway.outputs]]``, told apart by `kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from citynet.ids import is_id

OUTPUTS_MAX = 64


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


class FileOutput(BaseModel, extra="forbid", frozen=True):
    """An output that is switched by writing to a file, as the kernel's sysfs has them for LEDs, relays and GPIO."""

    kind: Literal["file"]
    name: Annotated[str, AfterValidator(_identifier)] = Field(description="name that interlocks and commands use")
    path: Path = Field(description="file that is written to; it must exist")
    on: str = Field("1", min_length=1, max_length=64, description="what is written to switch it on")
    off: str = Field("0", min_length=1, max_length=64, description="what is written to switch it off")


OutputSettings = FileOutput
