"""Load for the lines about rules: readings of a city of which every metric of the shipped packs is a part, as columns.

Values are calm but for one series in a thousand a batch, which is beyond every threshold for that batch: an alert that raises
and clears. Calm are a value that no rule minds and a noise of a few steps of the sensor's resolution. It rains everywhere, in
the hour in which night flows are measured: the dearest one for the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from citynet.batch import F64, I32, SeriesBatch
from citynet_rules.engine import SeriesInfo
from citynet_rules.spec import RuleSet

CALM: dict[str, tuple[float, float, float]] = {
    "battery_pct": (85.0, 0.1, 5.0), "ch4_lel": (2.0, 0.1, 60.0), "chlorine_mg_l": (0.5, 0.01, 0.01),
    "clock_skew_s": (1.0, 0.1, 90.0), "co_mg_m3": (1.0, 0.1, 300.0), "cover_tilt_deg": (1.0, 0.1, 30.0),
    "deflection_mm": (12.0, 0.1, 60.0), "frequency_hz": (3.0, 0.01, 4.0), "gas_pressure_kpa": (2.8, 0.01, 1.0),
    "gateway_uptime_s": (1e6, 1.0, 1e6), "h2s_mg_m3": (0.5, 0.1, 40.0), "level_m": (0.4, 0.001, 5.5),
    "makeup_m3_h": (4.0, 0.1, 30.0), "no2_ug_m3": (30.0, 1.0, 900.0), "o2_vol": (20.9, 0.01, 17.0),
    "o3_ug_m3": (60.0, 1.0, 500.0), "pm10_ug_m3": (50.0, 1.0, 450.0), "pm25_ug_m3": (25.0, 1.0, 300.0),
    "ponding_cm": (0.0, 0.1, 20.0), "pump_current_a": (60.0, 0.1, 180.0), "rain_mm_h": (0.0, 0.1, 90.0),
    "so2_ug_m3": (10.0, 1.0, 900.0), "stage_m": (2.0, 0.001, 6.5), "sump_level_m": (1.2, 0.001, 3.5),
    "supply_temperature_c": (70.0, 0.1, 30.0), "temperature_c": (18.0, 0.1, 60.0), "turbidity_ntu": (0.3, 0.01, 3.0),
    "water_flow_m3_h": (40.0, 0.1, 400.0), "water_pressure_mpa": (0.35, 0.001, 0.05),
}  # fmt: skip
"""Metric: the calm value, the sensor's resolution, a value that the rules mind."""
START_US = 1_767_290_400_000_000  # 2026-01-01T18:00Z: night in China
SERIES_A_GATEWAY = 40
BEYOND_SHARE = 0.001
_NOISE_STEPS = 2.0


@dataclass(frozen=True, slots=True)
class City:
    """`series` series of these metrics in turn, each with `rounds` readings a batch, `period_us` apart."""

    metrics: Sequence[str]
    series: int = 20_000
    rounds: int = 25
    period_us: int = 10_000_000
    start_us: int = START_US

    @property
    def batch(self) -> int:
        """Readings of a batch."""
        return self.series * self.rounds

    def infos(self) -> list[SeriesInfo]:
        """The series, ids from 1; a device has one series of every metric."""
        count = len(self.metrics)
        return [
            SeriesInfo(k + 1, f"dev-{k // count:06d}", self.metrics[k % count], f"bench-{k // SERIES_A_GATEWAY:05d}")
            for k in range(self.series)
        ]

    def batches(self, count: int, infos: Sequence[SeriesInfo], *, seed: int = 3) -> Iterator[SeriesBatch]:
        """That many batches that follow each other in time, by series and time, as ingest hands a full commit to the rules."""
        random = np.random.default_rng(seed)
        ordered = sorted(infos, key=lambda info: info.id)
        series: I32 = np.array([info.id for info in ordered], np.int32)
        calm, step, beyond = np.array([CALM[info.metric] for info in ordered]).T[:, :, None]
        shape = (len(series), self.rounds)
        phase = random.integers(0, self.period_us // 1000, len(series))[:, None] * 1000
        for number in range(count):
            turn = np.arange(number * self.rounds, (number + 1) * self.rounds, dtype=np.int64)
            time_us = self.start_us + phase + turn * self.period_us
            value: F64 = np.maximum(calm + np.round(random.normal(0.0, _NOISE_STEPS, shape)) * step, 0.0)
            is_beyond = random.random(len(series)) < BEYOND_SHARE
            value[is_beyond] = np.broadcast_to(beyond, shape)[is_beyond]
            columns = (np.repeat(series, self.rounds), time_us.ravel(), value.ravel())
            yield SeriesBatch(*columns, np.zeros(self.batch, np.uint8))


def metrics_of(rules: RuleSet) -> list[str]:
    """The metrics that these rules watch, each once, in the order of the rules."""
    return list(dict.fromkeys(rule.metric for rule in rules))


def watermarks(infos: Sequence[SeriesInfo], batch: SeriesBatch) -> dict[str, int]:
    """Every source has come as far as the batch, and so has the server's clock."""
    newest_us = int(batch.time_us.max())
    return {"": newest_us, **dict.fromkeys((info.source for info in infos), newest_us)}
