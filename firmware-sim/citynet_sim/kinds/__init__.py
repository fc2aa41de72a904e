"""Kinds of devices, one module each; this table is the only place that knows them all."""

from citynet_sim.kind import Kind
from citynet_sim.kinds import (
    air_station,
    bridge,
    gas_well,
    heat_station,
    manhole,
    pressure_point,
    pump_station,
    rain_gauge,
    river_gauge,
    tunnel_section,
    water_meter,
)

_MODULES = (
    gas_well, water_meter, manhole, pump_station, pressure_point, heat_station, tunnel_section, bridge, river_gauge,
    rain_gauge, air_station,
)  # fmt: skip
KINDS: dict[str, Kind] = {module.KIND.name: module.KIND for module in _MODULES}
