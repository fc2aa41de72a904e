"""Every kind of fault that can be staged: what it acts upon, how strongly and how long by default, what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass

from citynet_sim.faults import EVENT, SENSOR, TRANSPORT

CENTRAL, LOWEST, ALL, EVERYWHERE, FIRST = "central", "lowest", "all", "everywhere", "first"
PLACES = (CENTRAL, LOWEST, ALL, FIRST)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault. `peak` is in the unit of `channel`, from `low` to `high`; `spread` are the shares of it that the origin
    and its next neighbours of the same kind of device get; `where` says which device is the origin if nobody says so."""

    name: str
    layer: str
    domain: str
    about: str
    peak: float
    unit: str
    channel: str = ""
    metric: str = ""
    device_kind: str = ""
    where: str = CENTRAL
    spread: tuple[float, ...] = (1.0,)
    rise_s: float = 5.0
    hold_s: float = 1800.0
    decay_s: float = 600.0
    rain_mm_h: float = 0.0
    rule: str | None = None
    level: str | None = None
    low: float = 0.0
    high: float = 1.0


_ANY = 1e9  # of a metric, whatever its unit
_DAY_S = 86_400.0
_KINDS = (
    FaultKind(
        "gas-leak", EVENT, "gas", "a pipe leaks beside a well; methane reaches its neighbours", 82.0, "%LEL",
        "ch4_lel", "ch4_lel", "gas-well", spread=(1.0, 0.83, 0.78), rule="gas-ch4-void", level="red", high=2000.0,
    ),
    FaultKind(
        "biogas", EVENT, "gas", "slow gas of a sewer, with H2S beside it; not a leak", 6.0, "%LEL",
        "biogas_lel", "ch4_lel", "gas-well", spread=(1.0, 0.6), rise_s=7200.0, hold_s=21_600.0, decay_s=7200.0, high=2000.0,
    ),
    FaultKind(
        "ponding", EVENT, "drainage", "a blocked gully under a shower; water stands on the road", 36.0, "cm",
        "ponding_cm", "ponding_cm", "manhole", where=LOWEST, rain_mm_h=35.0, rule="drainage-ponding", level="red", high=500.0,
    ),
    FaultKind(
        "cover-open", EVENT, "drainage", "a manhole's cover is lifted", 35.0, "deg",
        "cover_tilt_deg", "cover_tilt_deg", "manhole", rise_s=1.0, decay_s=1.0,
        rule="drainage-cover-tilt", level="orange", high=180.0,
    ),
    FaultKind(
        "pump-failure", EVENT, "drainage", "the pumps of a station stand still; its sump fills", 1.0, "1",
        "pump", "sump_level_m", "pump-station", rise_s=1.0, hold_s=10_800.0, decay_s=900.0,
        rule="drainage-sump-high", level="orange",
    ),
    FaultKind(
        "burst", EVENT, "water", "a main cracks, the crack grows, the main bursts", 280.0, "m3/h",
        "leak_m3_h", "water_flow_m3_h", "water-meter", rise_s=3600.0, hold_s=14_400.0, decay_s=300.0,
        rule="water-burst-flow", level="orange", high=20_000.0,
    ),
    FaultKind(
        "heat-leak", EVENT, "heat", "a pipe of the heat network leaks; the station makes up for it", 14.0, "m3/h",
        "makeup_m3_h", "makeup_m3_h", "heat-station", rise_s=3600.0, hold_s=21_600.0, decay_s=600.0,
        rule="heating-makeup-rise", level="orange", high=1000.0,
    ),
    FaultKind(
        "tunnel-fire", EVENT, "tunnel", "a cable burns in the utility tunnel", 2500.0, "kW",
        "fire_kw", "temperature_c", "tunnel-section", spread=(1.0, 0.06, 0.06), rise_s=600.0, hold_s=1200.0, decay_s=300.0,
        level="red", high=100_000.0,
    ),
    FaultKind(
        "tunnel-gas", EVENT, "tunnel", "the gas cabin of the tunnel leaks", 35.0, "%LEL",
        "ch4_lel", "ch4_lel", "tunnel-section", rise_s=300.0, rule="gas-ch4-void", level="orange", high=2000.0,
    ),
    FaultKind(
        "overload", EVENT, "bridge", "a convoy far above the limit crosses the bridge", 180.0, "t",
        "convoy_t", "strain_um_m", "bridge", rise_s=5.0, hold_s=60.0, decay_s=5.0,
        rule="bridge-deflection-peak", level="orange", high=5000.0,
    ),
    FaultKind(
        "structural-change", EVENT, "bridge", "the girder loses stiffness", 0.15, "1",
        "damage", "frequency_hz", "bridge", rise_s=3600.0, hold_s=86_400.0, decay_s=1.0,
        rule="bridge-frequency-shift", level="orange", high=0.9,
    ),
    FaultKind(
        "flood-wave", EVENT, "river", "a wave from upstream", 2.4, "m",
        "stage_m", "stage_m", "river-gauge", where=ALL, rise_s=10_800.0, hold_s=7200.0, decay_s=14_400.0,
        rule="drainage-river-stage", level="orange", high=30.0,
    ),
    FaultKind(
        "dust", EVENT, "air", "dust from afar", 650.0, "ug/m3",
        "dust_ug_m3", "pm10_ug_m3", "air-station", where=ALL, rise_s=7200.0, hold_s=14_400.0, decay_s=7200.0,
        rule="air-pm10", level="yellow", high=20_000.0,
    ),
    FaultKind(
        "rain", EVENT, "weather", "rain", 50.0, "mm/h", "rain", "rain_mm_h",
        where=EVERYWHERE, rise_s=1.0, decay_s=1.0, high=400.0,
    ),
    FaultKind(
        "temperature", EVENT, "weather", "warmer or colder air", -8.0, "K",
        "temperature", "air_temperature_c", where=EVERYWHERE, rise_s=21_600.0, hold_s=86_400.0, decay_s=21_600.0,
        low=-60.0, high=60.0,
    ),
    FaultKind(
        "wind", EVENT, "weather", "wind", 6.0, "m/s", "wind", "wind_m_s",
        where=EVERYWHERE, rise_s=3600.0, decay_s=3600.0, high=60.0,
    ),
    FaultKind("stuck", SENSOR, "device", "the reading stays what it was", 0.0, "1", level="blue", low=-_ANY, high=_ANY),
    FaultKind("drift", SENSOR, "device", "the zero runs away; peak is what it reaches at the end, in the metric's unit",
              1.0, "metric", hold_s=86_400.0, level="blue", low=-_ANY, high=_ANY),
    FaultKind("spike", SENSOR, "device", "one reading in twenty jumps by the peak, in the metric's unit", 10.0, "metric",
              level="blue", low=-_ANY, high=_ANY),
    FaultKind("bias", SENSOR, "device", "the reading is off by the peak, in the metric's unit", 1.0, "metric", level="blue",
              low=-_ANY, high=_ANY),
    FaultKind("unit-slip", SENSOR, "device", "the reading is in another unit, by the factor of the peak", 0.001, "1",
              level="blue", low=1e-9, high=_ANY),
    FaultKind("clock-skew", SENSOR, "device", "the device's clock is ahead by the peak", 300.0, "s", level="blue",
              low=-366 * _DAY_S, high=366 * _DAY_S),
    FaultKind("reboot", SENSOR, "device", "the device restarts: a gap, then it warms up", 1.0, "1", rise_s=0.1, hold_s=60.0,
              level="blue"),
    FaultKind("dead", SENSOR, "device", "the device is silent", 1.0, "1", hold_s=7200.0, level="blue"),
    FaultKind("loss", TRANSPORT, "device", "messages are lost, by the share of the peak", 0.3, "1"),
    FaultKind("duplicate", TRANSPORT, "device", "messages come twice, by the share of the peak", 0.3, "1"),
    FaultKind("reorder", TRANSPORT, "device", "messages overtake each other by up to the peak", 60.0, "s", high=_DAY_S),
    FaultKind("delay", TRANSPORT, "device", "messages come late by the peak", 120.0, "s", high=_DAY_S),
    FaultKind("link-flap", TRANSPORT, "device", "the link is down every other spell of the peak; messages wait", 120.0, "s",
              low=0.001, high=_DAY_S),
    FaultKind("gateway-reboot", TRANSPORT, "device", "the gateway is away; messages wait until it is back", 1.0, "1",
              hold_s=90.0),
    FaultKind("power-cut", TRANSPORT, "device", "no power at the gateway and its devices: no messages", 1.0, "1", hold_s=600.0),
    FaultKind("replay", TRANSPORT, "device", "messages of the span of the peak before it come again", 3600.0, "s",
              hold_s=60.0, low=0.001, high=366 * _DAY_S),
)  # fmt: skip
CATALOGUE = {kind.name: kind for kind in _KINDS}
