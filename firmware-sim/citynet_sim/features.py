"""Assets of a city from a GeoJSON file (RFC 7946): districts as polygons, devices as points; mistakes by their feature."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, hypot, radians
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from citynet.errors import ConfigError
from citynet_sim.kinds import KINDS

DISTRICT = "district"
BYTES_MAX = 64 << 20
PROBLEMS_MAX = 50
_NAME = r"^[A-Za-z0-9._-]{1,64}$"

Position = Annotated[list[float], Field(min_length=2, max_length=3)]
Ring = list[tuple[float, float]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Common(_Strict):
    id: str = Field(pattern=_NAME)
    name: str = Field(default="", max_length=128)


class _DistrictProperties(_Common):
    kind: Literal["district"]


class _DeviceProperties(_Common):
    kind: str
    district: str | None = None
    gateway: str | None = None
    ground_m: float | None = Field(default=None, ge=-500.0, le=9000.0)
    drains_to: str | None = None


@dataclass(frozen=True, slots=True)
class District:
    """A district: its outer ring as longitude and latitude, closed."""

    id: str
    name: str
    ring: Ring


@dataclass(frozen=True, slots=True)
class Asset:
    """A device's place; `drains_to` is the manhole that a manhole drains to."""

    id: str
    kind: str
    name: str
    lon: float
    lat: float
    district: str | None
    gateway: str | None
    ground_m: float | None
    drains_to: str | None


@dataclass(frozen=True, slots=True)
class Features:
    """What a file says, in its order."""

    path: str
    sha256: str
    districts: tuple[District, ...]
    assets: tuple[Asset, ...]


def read(path: str, gateways: Iterable[str]) -> Features:
    """Read a FeatureCollection. ConfigError: no such file, or every mistake in it (at most `PROBLEMS_MAX`), one line each."""
    try:
        if Path(path).stat().st_size > BYTES_MAX:
            raise ConfigError([f"{path}: larger than {BYTES_MAX >> 20} MiB"])
        body = Path(path).read_bytes()
        document = json.loads(body)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is no text in UTF-8 (byte {error.start})"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: nested too deeply"]) from None
    except ValueError as error:
        raise ConfigError([f"{path}: is no JSON: {error}"]) from None
    problems: list[str] = []
    found = Features(path, hashlib.sha256(body).hexdigest(), *_parsed(document, problems))
    if not problems:
        problems += _unfit(found, set(gateways))
    if problems:
        more = [f"and {len(problems) - PROBLEMS_MAX} more"] if len(problems) > PROBLEMS_MAX else []
        raise ConfigError([f"{path}: {problem}" for problem in [*problems[:PROBLEMS_MAX], *more]])
    return found


def _parsed(document: object, problems: list[str]) -> tuple[tuple[District, ...], tuple[Asset, ...]]:
    districts: list[District] = []
    assets: list[Asset] = []
    if not isinstance(document, Mapping) or document.get("type") != "FeatureCollection":
        problems.append("is no GeoJSON FeatureCollection")
        return (), ()
    if "crs" in document:
        problems.append("crs: GeoJSON is longitude and latitude in WGS 84 (RFC 7946); remove it, after a conversion")
    features = document.get("features")
    if not isinstance(features, list):
        problems.append("features: must be an array")
        return (), ()
    for number, feature in enumerate(features):
        where = f"features[{number}]"
        if not isinstance(feature, Mapping) or feature.get("type") != "Feature":
            problems.append(f"{where}: is no Feature")
            continue
        properties = feature.get("properties")
        if not isinstance(properties, Mapping):
            problems.append(f"{where}.properties: must be an object with kind and id")
            continue
        properties = {"id": feature["id"], **properties} if "id" in feature else dict(properties)
        where += f" (id {str(properties['id'])[:64]!r})" if "id" in properties else ""
        item = _item(properties, feature.get("geometry"), where, problems)
        if isinstance(item, District):
            districts.append(item)
        elif item is not None:
            assets.append(item)
    return tuple(districts), tuple(assets)


def _item(properties: dict[str, Any], geometry: object, where: str, problems: list[str]) -> District | Asset | None:
    """A feature, or None and its mistakes."""
    known = len(problems)
    is_district = properties.get("kind") == DISTRICT
    about = _about(properties, where, problems)
    spots = _spots(geometry, where, problems, is_polygon=is_district)
    if about is None or len(problems) > known:
        return None
    if isinstance(about, _DistrictProperties):
        return District(about.id, about.name, spots)
    return Asset(
        about.id, about.kind, about.name, *spots[0], about.district, about.gateway, about.ground_m, about.drains_to
    )  # fmt: skip


def _about(
    properties: dict[str, Any], where: str, problems: list[str]
) -> _DistrictProperties | _DeviceProperties | None:
    kind = properties.get("kind")
    if kind != DISTRICT and isinstance(kind, str) and kind not in KINDS:
        problems.append(f"{where}: kind: {kind[:60]!r} is unknown (known: {DISTRICT}, {', '.join(KINDS)})")
    if properties.get("drains_to") is not None and kind in KINDS and kind != "manhole":
        problems.append(f"{where}: drains_to: says nothing of a {kind}")
    try:
        if kind == DISTRICT:
            return _DistrictProperties.model_validate(properties)
        return _DeviceProperties.model_validate(properties)
    except ValidationError as error:
        problems += [f"{where}: {_key(item['loc'])}: {_words(item)}" for item in error.errors()]
        return None


def _spots(geometry: object, where: str, problems: list[str], *, is_polygon: bool) -> Ring:
    """The point, or the outer ring; mistakes go into `problems`."""
    wanted = "Polygon" if is_polygon else "Point"
    if not isinstance(geometry, Mapping) or geometry.get("type") != wanted:
        problems.append(f"{where}: geometry: must be a {wanted}")
        return []
    try:
        if is_polygon:
            rings = TypeAdapter(list[list[Position]]).validate_python(geometry.get("coordinates"))
            spots = [(spot[0], spot[1]) for spot in (rings[0] if rings else [])]
            if len(spots) < 4 or spots[0] != spots[-1]:
                problems.append(
                    f"{where}: geometry.coordinates: a ring has four positions or more and ends where it began"
                )
        else:
            spot = TypeAdapter(Position).validate_python(geometry.get("coordinates"))
            spots = [(spot[0], spot[1])]
    except ValidationError as error:
        problems.append(f"{where}: geometry.coordinates: {_words(error.errors()[0])}")
        return []
    if not all(-180.0 <= lon <= 180.0 and -85.0 <= lat <= 85.0 for lon, lat in spots):
        problems.append(f"{where}: geometry.coordinates: not longitude and latitude in degrees")
    return spots


def _unfit(found: Features, gateways: set[str]) -> list[str]:
    """What does not fit together."""
    problems = []
    ids = Counter([*(district.id for district in found.districts), *(asset.id for asset in found.assets)])
    problems += [f"id {name!r} stands there {count} times" for name, count in ids.items() if count > 1]
    districts = {district.id for district in found.districts}
    manholes = {asset.id: asset for asset in found.assets if asset.kind == "manhole"}
    for asset in found.assets:
        where = f"id {asset.id!r}"
        if asset.district is not None and districts and asset.district not in districts:
            problems.append(f"{where}: district: {asset.district[:60]!r} is no district of the file")
        if asset.district is not None and not districts:
            problems.append(f"{where}: district: the file has no districts")
        if asset.gateway is not None and asset.gateway not in gateways:
            problems.append(f"{where}: gateway: {asset.gateway[:60]!r} is not among the settings' gateways")
        if asset.drains_to is not None and asset.drains_to not in manholes:
            problems.append(f"{where}: drains_to: {asset.drains_to[:60]!r} is no manhole of the file")
    problems += [f"id {name!r}: drains_to: the way down comes back to it" for name in _circles(manholes)]
    if not found.assets and not found.districts:
        problems.append("features: none")
    return problems


def _circles(manholes: Mapping[str, Asset]) -> Iterator[str]:
    """Manholes that drain to themselves in the end; the first of each circle."""
    done: set[str] = set()
    for name in manholes:
        path: list[str] = []
        here: str | None = name
        while here is not None and here in manholes and here not in done and here not in path:
            path.append(here)
            here = manholes[here].drains_to
        if here is not None and here in path:
            yield here
        done.update(path)


def _key(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place)


def _words(item: Any) -> str:
    if item["type"] in ("missing", "extra_forbidden"):
        return str(item["msg"])
    return f"{item['msg']} (got {str(item.get('input'))[:60]!r})"


# --- where a place is ------------------------------------------------------------------------------------------------


def district_of(at: tuple[float, float], districts: Sequence[District]) -> str:
    """The first of some districts that has a place (longitude, latitude), else the one whose middle is nearest."""
    for district in districts:
        if _is_in(at, district.ring):
            return district.id
    return min(districts, key=lambda district: (_far(at, _middle(district.ring)), district.id)).id


def _is_in(at: tuple[float, float], ring: Ring) -> bool:
    """Whether a ray to the east crosses the ring an odd number of times."""
    x, y = at
    odd = False
    for (x0, y0), (x1, y1) in pairwise(ring):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


def _middle(ring: Ring) -> tuple[float, float]:
    corners = ring[:-1]
    return sum(lon for lon, _ in corners) / len(corners), sum(lat for _, lat in corners) / len(corners)


def _far(a: tuple[float, float], b: tuple[float, float]) -> float:
    return hypot((a[0] - b[0]) * cos(radians(a[1])), a[1] - b[1])
