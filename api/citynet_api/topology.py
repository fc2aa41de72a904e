"""The topology document: districts, assets, and the edges of networks, checked before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from citynet_api.errors import dotted, faults
from citynet_api.problems import Fault, Problem
from citynet_api.registry import JSON_TYPE, NAME

FAULTS_MAX = 50
Text = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(pattern=NAME)]
Lon = Annotated[float, Field(ge=-180, le=180)]
Lat = Annotated[float, Field(ge=-90, le=90)]
Position = tuple[Lon, Lat]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)


class DistrictEntry(_Entry):
    """A district as devices and assets name it. What is absent stays as it was."""

    district: Text
    label: Text | None = None
    outline: list[Position] | None = Field(None, min_length=4, description="outer ring: longitude, latitude; closed")

    @model_validator(mode="after")
    def _closed(self) -> DistrictEntry:
        if self.outline is not None and self.outline[0] != self.outline[-1]:
            raise ValueError("outline: must end where it began")
        return self


class AssetEntry(_Entry):
    """Something that stands somewhere, and the devices at it. What is absent stays as it was."""

    asset: Name
    kind: Text
    label: Text | None = None
    district: Text | None = None
    lon: Lon | None = Field(None, description="WGS 84")
    lat: Lat | None = Field(None, description="WGS 84")
    devices: list[Name] | None = Field(None, description="registered devices that stand here; null: as it was")


class EdgeEntry(_Entry):
    """What joins two assets, in the direction of flow."""

    edge: Name = Field(description="its name in the network")
    kind: Text = "pipe"
    start: Name = Field(alias="from", description="the asset that it flows from")
    end: Name = Field(alias="to", description="the asset that it flows to")
    length_m: float | None = Field(None, ge=0)
    line: list[Position] | None = Field(None, min_length=2, description="longitude, latitude, from start to end")

    @model_validator(mode="after")
    def _two_ends(self) -> EdgeEntry:
        if self.start == self.end:
            raise ValueError(f"flows from {self.start!r} to itself")
        return self


class TopologyEntry(_Entry):
    """The document. Districts and assets are added or changed; a network that is named is replaced as a whole."""

    districts: list[DistrictEntry] = []
    assets: list[AssetEntry] = []
    networks: dict[Name, list[EdgeEntry]] = Field({}, description="edges by network; an empty list removes a network")

    def items(self) -> int:
        """How many things it says something of."""
        return len(self.districts) + len(self.assets) + sum(len(edges) for edges in self.networks.values())


def parse(body: bytes, content_type: str, items_max: int) -> TopologyEntry:
    """The document.

    Raises:
        Problem: 415 for another content type; 400 for bytes that are not JSON; 422 that names every mistake by its place,
            such as ``networks.sewer[3].to``.
    """
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        raise Problem("unsupported-media-type", f"Send {JSON_TYPE}.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        where = [Fault(parameter="body", location="body", detail=str(error))]
        raise Problem("unreadable-body", f"body: {error}", where) from None
    try:
        found = TopologyEntry.model_validate(document)
    except ValidationError as error:
        raise refusal([_placed(item) for item in error.errors()[:FAULTS_MAX]]) from None
    if found.items() > items_max:
        raise Problem(
            "body-too-large", f"{found.items()} districts, assets and edges; send at most {items_max} at once."
        )
    if repeated := [Fault(parameter=place, location="body", detail=text) for place, text in _repeats(found)]:
        raise refusal(repeated)
    return found


def _placed(item: object) -> Fault:
    found = faults([{**item, "loc": ("body", *item["loc"])}])[0]  # type: ignore[dict-item, index]
    return Fault(parameter=dotted(item["loc"]) or "body", location="body", detail=found.detail)  # type: ignore[index]


def _repeats(document: TopologyEntry) -> Iterator[tuple[str, str]]:
    named = {
        "districts": [entry.district for entry in document.districts],
        "assets": [entry.asset for entry in document.assets],
        "assets.devices": [device for entry in document.assets for device in entry.devices or ()],
    }
    named |= {f"networks.{name}": [entry.edge for entry in edges] for name, edges in document.networks.items()}
    for place, names in named.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield place, f"{name!r} stands there {count} times"


def refusal(found: list[Fault]) -> Problem:
    """A 422 with all of these."""
    words = "; ".join(f"{fault.parameter}: {fault.detail}" for fault in found)
    return Problem("invalid-request", words[:1000], found[:FAULTS_MAX])
