"""A city read from an EPANET network and from GeoJSON: hydraulics as EPANET's own, what is measured where, mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from citynet.errors import ConfigError
from citynet_sim import registration, topology
from citynet_sim.city import City
from citynet_sim.cli import app
from citynet_sim.faults import Fault
from citynet_sim.live import header
from citynet_sim.mains import STEP_S, PipedSupply
from citynet_sim.models.rhythm import DAY_S, LOCAL_OFFSET_S
from citynet_sim.noise import F64
from citynet_sim.settings import SimSettings
from citynet_sim.staging import city_of, simulation_of

pytest.importorskip("wntr.epanet.toolkit", reason="needs the extra sim-hydraulics")

NETWORK = """[TITLE]
A small town: one works, one tower, two loops.
[JUNCTIONS]
 J1  21.0 0.0
 J2  24.5 16.0
 J3  23.0 19.0
 J4  26.0 14.5
 J5  22.5 17.5 shops
 J6  28.0 3.0
 J7  25.0 5.0
[RESERVOIRS]
 works 20.0
[TANKS]
 tower 58.0 2.5 0.5 5.0 16.0 0
[PIPES]
 M1 J1 J2 900 350 120 0 Open
 M2 J2 J3 700 300 120 0 Open
 M3 J3 J5 800 250 115 0 Open
 M4 J2 J4 650 250 120 0 Open
 M5 J4 J5 750 200 110 0 Open
 M6 J4 J6 600 150 110 0 Open
 M7 J6 J7 500 150 110 0 Open
 M8 J7 J5 550 200 110 0 Open
 M9 tower J4 120 300 125 0 Open
[PUMPS]
 P1 works J1 HEAD lift
[TAGS]
 NODE J6 dma-hill
 NODE J7 dma-hill
[CURVES]
 lift 85.0 48.0
[PATTERNS]
 day   0.55 0.45 0.40 0.45 0.70 1.20 1.55 1.40 1.20 1.10 1.05 1.05
 day   1.10 1.05 1.00 1.00 1.10 1.30 1.50 1.40 1.20 1.00 0.80 0.65
 shops 0.20 0.20 0.20 0.20 0.20 0.40 0.80 1.20 1.80 2.00 2.00 2.00
 shops 2.00 2.00 2.00 1.80 1.60 1.20 0.80 0.40 0.20 0.20 0.20 0.20
[CONTROLS]
 LINK P1 CLOSED IF NODE tower ABOVE 4.5
 LINK P1 OPEN IF NODE tower BELOW 1.5
[TIMES]
 Duration 24:00
 Hydraulic Timestep 1:00
 Pattern Timestep 1:00
[OPTIONS]
 Units LPS
 Headloss H-W
 Pattern day
[COORDINATES]
 J1 0 0
 J2 900 0
 J3 1600 0
 J4 900 650
 J5 1600 800
 J6 600 1200
 J7 1100 1300
 works -200 0
 tower 900 770
[END]
"""
DAY = 20_500  # a local day, since 1970
MIDNIGHT_S = DAY * DAY_S - LOCAL_OFFSET_S


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> City:
    folder = tmp_path_factory.mktemp("town")
    (folder / "town.inp").write_text(NETWORK)
    return city_of(settings(folder / "town.inp"))


def settings(inp: Path | str = "", geojson: Path | str = "", scenario: str = "calm", **city: Any) -> SimSettings:
    files = {"inp": str(inp), "geojson": str(geojson), "coordinates": "local"}
    return SimSettings.model_validate({"scenario": scenario, "city": {"population": 0, "files": files, **city}})


def supply(town: City, leaks: list[Fault] | None = None, *, is_varied: bool = False) -> PipedSupply:
    survey = town.survey
    assert survey is not None
    assert survey.network is not None
    assert survey.metering is not None
    return PipedSupply(town.seed, survey.network, survey.metering, town.devices, leaks or [], is_varied=is_varied)


def own_run(path: str) -> tuple[F64, dict[str, F64]]:
    """Two days of the file as it is, by EPANET through WNTR: moments in s, pressures in m."""
    import wntr

    model = wntr.network.WaterNetworkModel(path)
    model.options.time.duration = 2 * int(DAY_S)
    model.options.time.hydraulic_timestep = model.options.time.report_timestep = STEP_S
    result = wntr.sim.EpanetSimulator(model).run_sim(file_prefix=path.removesuffix(".inp") + "-own")
    pressure = result.node["pressure"]
    return pressure.index.to_numpy(float), {name: pressure[name].to_numpy(float) for name in pressure.columns}


def test_what_is_measured_follows_the_documented_rule(town: City) -> None:
    survey = town.survey
    assert survey is not None
    assert survey.metering is not None
    # 72 L/s outside the hill are more than 200 m3/h: the west and the east have a meter each
    assert dict(survey.metering.junctions) == {
        "dma-hill": ("J6", "J7"),
        "dma-0001": ("J1", "J2", "J4"),
        "dma-0002": ("J3", "J5"),
    }
    assert survey.metering.node_of["dma-0001"] == "J1"  # behind the pump
    assert [d.name for d in town.of_kind("pressure-point")] == ["pp-J2", "pp-J4", "pp-J5", "pp-J6"]
    assert len(town.devices) == 7
    few = city_of(settings(survey.network.path if survey.network else "", devices={"pressure-point": 2}))
    assert [d.name for d in few.of_kind("pressure-point")] == ["pp-J2", "pp-J5"]


def test_pressures_are_those_of_epanets_own_run(town: City) -> None:
    survey = town.survey
    assert survey is not None
    assert survey.network is not None
    assert survey.metering is not None
    at_s, own = own_run(survey.network.path)
    ours = supply(town)
    wanted = at_s >= DAY_S
    t_s = MIDNIGHT_S + at_s[wanted][:-1] - DAY_S
    for device in town.devices:
        pressure, _ = ours.at(device, t_s)
        expected = 9.80665e-3 * own[survey.metering.node_of[device.name]][wanted][:-1]
        assert pressure == pytest.approx(expected, abs=5e-5)
        assert 0.02 < np.ptp(pressure) < 0.4


def test_a_meter_tells_what_its_district_uses(town: City) -> None:
    """Mass balance: the net inflow over all links is the demand by base, pattern and variation, which no link knows of."""
    hill = next(d for d in town.devices if d.name == "dma-hill")
    noon = MIDNIGHT_S + 12.0 * 3600.0 + np.arange(0.0, 3600.0, 300.0)
    _, plain = supply(town).at(hill, noon)
    assert plain == pytest.approx(3.6 * 8.0 * 1.1, abs=0.02)
    _, varied = supply(town, is_varied=True).at(hill, noon)
    assert 0.7 < (varied / plain).min() < (varied / plain).max() < 1.3
    assert np.ptp(varied / plain) > 0.001
    assert supply(town).mean_m3_h(hill) == pytest.approx(3.6 * 8.0, rel=0.02)


def test_a_pipe_bursts_by_the_orifice_law_and_its_meter_tells(town: City, tmp_path: Path) -> None:
    survey = town.survey
    assert survey is not None
    assert survey.network is not None
    scenario = tmp_path / "burst.toml"
    scenario.write_text(
        'about = "x"\nstart = 2026-02-16T00:00:00+08:00\n[[fault]]\nkind = "burst"\npipe = "M7"\n'
        "at_s = 36000\npeak = 60.0\nrise_s = 1800\nhold_s = 7200\ndecay_s = 60\n"
    )
    asked = settings(survey.network.path, scenario=str(scenario))
    start_us = round((MIDNIGHT_S) * 1e6)
    simulation = simulation_of(asked, start_us)
    (burst,) = simulation.faults
    assert (burst.pipe, burst.devices) == ("M7", ("dma-hill",))
    assert burst.to_json()["pipe"] == "M7"
    assert "town.inp" in header(simulation, asked, start_us)["files"]
    calm, hurt = supply(town), supply(town, [burst])
    hill = next(d for d in town.devices if d.name == "dma-hill")
    t_s = MIDNIGHT_S + np.arange(0.0, DAY_S, 60.0)
    (p0, q0), (p1, q1) = calm.at(hill, t_s), hurt.at(hill, t_s)
    before = t_s <= burst.start_us / 1e6
    # The cut in the pipe is there before it bursts; what it changes is rounding.
    assert q1[before] == pytest.approx(q0[before], abs=0.05)
    full = (t_s > burst.start_us / 1e6 + 3600.0) & (t_s < burst.end_us / 1e6)
    middle_m = np.interp(t_s[full], t_s, p1) / 9.80665e-3  # near the cut: J6 and J7 are a few metres apart
    assert (q1 - q0)[full] == pytest.approx(60.0 * np.sqrt(middle_m / 40.0), rel=0.1)
    assert (p1 < p0)[full].all()
    other = next(d for d in town.devices if d.name == "dma-0002")
    assert hurt.at(other, t_s)[1] == pytest.approx(calm.at(other, t_s)[1], abs=0.5)


def test_pipes_run_with_the_water(town: City) -> None:
    world = simulation_of(settings(town.survey.network.path if town.survey and town.survey.network else ""), 0).world
    edges = {str(edge["name"]): edge for edge in topology.edges(world.city, world.supply) if edge["network"] == "water"}
    assert len(edges) == 10
    assert (edges["P1"]["from"], edges["P1"]["to"], edges["P1"]["kind"]) == ("wn-works", "wn-J1", "pump")
    # M8 is written from J7 to J5, and the hill is fed from both sides
    assert (edges["M1"]["from"], edges["M1"]["to"], edges["M1"]["length_m"]) == ("wn-J1", "wn-J2", 900.0)
    assert edges["M7"]["from"] == ("wn-J6" if edges["M8"]["from"] == "wn-J7" else edges["M7"]["from"])


def test_epanet_says_what_is_wrong_with_a_network(tmp_path: Path) -> None:
    def refused(text: str, **more: Any) -> str:
        (tmp_path / "bad.inp").write_text(text)
        with pytest.raises(ConfigError) as caught:
            city_of(settings(tmp_path / "bad.inp", **more))
        assert all(line for line in caught.value.problems)
        return str(caught.value)

    broken = NETWORK.replace("M3 J3 J5", "M3 J3 J9").replace("22.5 17.5 shops", "22.5 17.5 parks")
    text = refused(broken)
    assert len(text.splitlines()) == 2
    assert "undefined node J9 in [PIPES] section" in text
    assert "J5  22.5 17.5 parks" in text
    assert "[COORDINATES]: missing" in refused(NETWORK[: NETWORK.index("[COORDINATES]")] + "[END]\n")
    assert "water-meter: the meters are those of the .inp file" in refused(NETWORK, devices={"water-meter": 3})
    with pytest.raises(ConfigError, match=r"none\.inp: No such file"):
        city_of(settings(tmp_path / "none.inp"))
    (tmp_path / "bad.inp").write_text(NETWORK)
    files = {"inp": str(tmp_path / "bad.inp"), "coordinates": "wgs84"}
    with pytest.raises(ConfigError, match="nowhere on earth; coordinates = 'local'"):
        city_of(SimSettings.model_validate({"city": {"files": files}}))


def test_local_coordinates_begin_at_their_origin(town: City) -> None:
    path = town.survey.network.path if town.survey and town.survey.network else ""
    files = {"inp": path, "coordinates": "local", "unit_m": 2.0, "origin_lon_deg": 117.0, "origin_lat_deg": 0.0}
    survey = city_of(SimSettings.model_validate({"city": {"population": 0, "files": files}})).survey
    assert survey is not None
    assert survey.nodes["J1"] == (117.0, 0.0)
    assert survey.nodes["J2"] == pytest.approx((117.0 + 1800.0 / 111_320.0, 0.0), abs=1e-6)
    with pytest.raises(ValueError, match="go together"):
        SimSettings.model_validate({"city": {"files": {"origin_lon_deg": 1.0}}})


def test_a_scenario_names_its_city_and_its_pipes(tmp_path: Path) -> None:
    """Paths in a scenario are taken from where it stands; pipes that are not there are named."""
    (tmp_path / "town.inp").write_text(NETWORK)
    scenario = tmp_path / "s.toml"
    head = 'about = "x"\n[city]\ninp = "town.inp"\ncoordinates = "local"\n'
    scenario.write_text(head)
    plain = SimSettings.model_validate({"scenario": str(scenario), "city": {"population": 0}})
    assert simulation_of(plain, 0).city.series_count == 3 * 5 + 4 * 2
    entry = '[[fault]]\nkind = "{}"\nat_s = 1\n'
    scenario.write_text(head + entry.format("burst") + 'pipe = "M99"\n' + entry.format("burst") + 'pipe = "P1"\n')
    with pytest.raises(ConfigError) as caught:
        simulation_of(plain, 0)
    assert [line.partition(".toml: ")[2].partition(" of ")[0] for line in caught.value.problems] == [
        "fault[0].pipe: 'M99' is not a pipe",
        "fault[1].pipe: 'P1' is not a pipe",
    ]
    scenario.write_text(head + entry.format("dust") + 'pipe = "M1"\n')
    with pytest.raises(ConfigError, match=r"fault\[0\]\.pipe: 'dust' does not happen to a pipe"):
        simulation_of(plain, 0)


def feature(kind: str, ident: str, at: object = (117.0, 31.0), shape: str = "Point", **more: object) -> dict[str, Any]:
    properties = {"kind": kind, "id": ident, **more}
    return {"type": "Feature", "geometry": {"type": shape, "coordinates": at}, "properties": properties}


def square(name: str, west: float) -> dict[str, Any]:
    ring = [[west, 31.0], [west + 0.1, 31.0], [west + 0.1, 31.1], [west, 31.1], [west, 31.0]]
    return feature("district", name, [ring], "Polygon", name=f"District {name}")


def collection(path: Path, features: list[Any], **more: object) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def test_assets_stand_where_the_file_says(tmp_path: Path) -> None:
    file = collection(
        tmp_path / "assets.geojson",
        [
            square("west", 117.0),
            square("east", 117.1),
            feature("manhole", "mh-a", (117.02, 31.05), drains_to="mh-b", ground_m=12.5, name="Corner"),
            feature("manhole", "mh-b", (117.15, 31.05)),
            feature("pump-station", "ps-1", (117.31, 31.05), gateway="gw-02"),
            feature("bridge", "br-north", (117.05, 31.02), district="east"),
        ],
    )
    city = city_of(settings(geojson=file, devices={"gas-well": 2}))
    by_name = {device.name: device for device in city.devices}
    assert set(by_name) == {"mh-a", "mh-b", "ps-1", "br-north", "gas-0001", "gas-0002"}
    assert city.districts == ("west", "east")
    where = {name: device.district for name, device in by_name.items()}
    # inside, beyond all of them (the nearest), and where the file says so
    assert (where["mh-a"], where["mh-b"], where["ps-1"], where["br-north"]) == ("west", "east", "east", "east")
    assert {device.district for device in city.of_kind("gas-well")} <= {"west", "east"}
    assert (by_name["mh-a"].lon, by_name["mh-a"].lat, by_name["mh-a"].ground_m) == (117.02, 31.05, 12.5)
    assert by_name["ps-1"].gateway == "gw-02"
    assert topology.downstream(city) == {"mh-a": "mh-b", "mh-b": topology.OUTFALL}


def test_every_mistake_of_a_geojson_file_is_a_line(tmp_path: Path) -> None:
    def refused(*features: object, **more: object) -> list[str]:
        path = collection(tmp_path / "bad.geojson", list(features), **more)
        with pytest.raises(ConfigError) as caught:
            city_of(settings(geojson=path))
        assert all(line.startswith(f"{path}: ") for line in caught.value.problems)
        return [line.removeprefix(f"{path}: ") for line in caught.value.problems]

    lines = refused(
        feature("manhole", "fine"),
        feature("manole", "mh-1"),
        feature("bridge", "two words"),
        feature("bridge", "b2", (200.0, 31.0)),
        feature("bridge", "b3", "here"),
        feature("bridge", "b4", [[1.0, 2.0]], "LineString"),
        feature("bridge", "b5", colour="red"),
        {"type": "Feature", "geometry": None, "properties": None},
        "text",
        feature("district", "d", [[[1, 2], [3, 4], [5, 6]]], "Polygon"),
        {**feature("bridge", "x"), "properties": {"kind": "bridge"}},
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "features[1] (id 'mh-1')", "features[2] (id 'two words')", "features[3] (id 'b2')", "features[4] (id 'b3')",
        "features[5] (id 'b4')", "features[6] (id 'b5')", "features[7].properties", "features[8]",
        "features[9] (id 'd')", "features[10]",
    ]  # fmt: skip
    assert lines[0].startswith("features[1] (id 'mh-1'): kind: 'manole' is unknown (known: district, gas-well")
    assert lines[-1] == "features[10]: id: Field required"
    assert refused(
        feature("manhole", "a", drains_to="b"), feature("manhole", "b", drains_to="a"), feature("manhole", "a"),
        feature("manhole", "c", drains_to="z", district="d", gateway="gw-9"),
    ) == [
        "id 'a' stands there 2 times",
        "id 'c': district: the file has no districts",
        "id 'c': gateway: 'gw-9' is not among the settings' gateways",
        "id 'c': drains_to: 'z' is no manhole of the file",
    ]  # fmt: skip
    circle = refused(feature("manhole", "a", drains_to="b"), feature("manhole", "b", drains_to="a"))
    assert circle == ["id 'a': drains_to: the way down comes back to it"]
    assert "RFC 7946" in refused(feature("bridge", "b"), crs={"type": "name"})[0]
    assert refused() == ["features: none"]
    many = refused(*(feature("bridge", "no name") for _ in range(60)))
    assert (len(many), many[-1]) == (51, "and 10 more")
    (tmp_path / "bad.geojson").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.geojson: is no JSON: Expecting"):
        city_of(settings(geojson=tmp_path / "bad.geojson"))


def test_devices_of_files_can_be_served(tmp_path: Path) -> None:
    (tmp_path / "town.inp").write_text(NETWORK)
    config = tmp_path / "citynet.toml"
    config.write_text('[sim.city]\npopulation = 0\n[sim.city.files]\ncoordinates = "local"\n')
    assets = collection(tmp_path / "assets.geojson", [feature("bridge", "br-north")])
    files = ["-c", str(config), "--inp", str(tmp_path / "town.inp"), "--geojson", str(assets)]
    served = CliRunner().invoke(app, ["serve", "dma-hill=modbus-tcp", "br-north=iio", "--gateway-toml", *files])
    assert served.exit_code == 0, served.stderr
    assert re.findall(r'device = "(.*)"', served.stdout) == ["dma-hill", "br-north"]


def test_both_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "bad.inp").write_bytes(b"\xef\xbb\xbf" + NETWORK.encode())
    (tmp_path / "bad.geojson").write_bytes(b"\xff")
    asked = settings(tmp_path / "bad.inp", geojson=tmp_path / "bad.geojson")
    with pytest.raises(ConfigError) as caught:
        city_of(asked)
    assert [line.rpartition(": ")[2] for line in caught.value.problems] == [
        "begins with a byte-order mark, which EPANET does not read; save it without",
        "is no text in UTF-8 (byte 0)",
    ]
    (tmp_path / "bad.inp").write_bytes(NETWORK.encode().replace(b"J5", b"J\x005"))
    with pytest.raises(ConfigError, match=r"bad\.inp: is no text \(byte \d+ is zero\)"):
        city_of(asked)


def test_a_city_from_a_file_registers_what_stands_at_its_nodes(town: City) -> None:
    survey = town.survey
    assert survey is not None
    assert survey.network is not None
    document = registration.topology_of(simulation_of(settings(survey.network.path), 0))
    assets = {asset["asset"]: asset for asset in document["assets"]}
    assert set(assets) == {f"wn-{name}" for name in survey.network.nodes}
    assert assets["wn-J1"]["devices"] == ["dma-0001"]
    assert (assets["wn-tower"]["kind"], assets["wn-tower"]["devices"]) == ("tank", [])
    edges = document["networks"]["water"]
    assert {edge["edge"] for edge in edges} == {f"p-{name}" for name in survey.network.links}
    assert {edge[side] for edge in edges for side in ("from", "to")} <= set(assets)
