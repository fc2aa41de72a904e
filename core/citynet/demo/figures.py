"""Figures of the running demo, read from its database: the live line and what the judge needs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from citynet.demo.judge import ReadingKey

Connection = psycopg.Connection[tuple[object, ...]]

_BOOKS = """
SELECT coalesce(sum(greatest(claimed, seq)), 0), coalesce(sum(stored), 0), coalesce(sum(dead_lettered), 0),
       coalesce(sum(lost), 0), coalesce(sum(noted), 0), coalesce(sum(greatest(claimed, seq) - seq), 0)
FROM stream_cursor
"""
_ALERTS = (
    "SELECT count(*) FILTER (WHERE cleared_at IS NULL), count(*), extract(epoch FROM min(recorded_at))"
    " FROM alert WHERE mode = 'live'"
)
# Newest reading of a sample of series: an index look-up each, however long the demo has been running.
_NEWEST = """
SELECT extract(epoch FROM max(r.time))
FROM (SELECT id FROM series ORDER BY id LIMIT 40) AS s
CROSS JOIN LATERAL (SELECT time FROM reading WHERE series_id = s.id ORDER BY time DESC LIMIT 1) AS r
"""
_READINGS = """
SELECT d.name, s.metric, (extract(epoch FROM r.time) * 1000000)::bigint, r.value
FROM reading r JOIN series s ON s.id = r.series_id JOIN device d ON d.id = s.device_id
WHERE s.metric <> 'gateway_uptime_s'
"""
_DEVICE_READINGS = """
SELECT count(*) FROM reading r JOIN series s ON s.id = r.series_id WHERE s.metric <> 'gateway_uptime_s'
"""
_RAISED = (
    "SELECT rule_id, object, level_max::int, (extract(epoch FROM raised_at) * 1000000)::bigint"
    " FROM alert WHERE mode = 'live'"
)


@dataclass(frozen=True, slots=True)
class Figures:
    """The books at one moment."""

    accepted: int
    stored: int
    dead_lettered: int
    lost: int
    noted: int
    in_spool: int
    alerts_open: int
    alerts: int
    first_alert_s: float | None
    lag_s: float | None

    @property
    def is_balanced(self) -> bool:
        return self.accepted == self.stored + self.dead_lettered + self.lost + self.noted + self.in_spool


def read(connection: Connection) -> Figures:
    """The figures now."""
    accepted, stored, dead, lost, noted, in_spool = (int(str(n)) for n in connection.execute(_BOOKS).fetchone() or ())
    alerts = connection.execute(_ALERTS).fetchone() or (0, 0, None)
    newest = (connection.execute(_NEWEST).fetchone() or (None,))[0]
    return Figures(
        accepted,
        stored,
        dead,
        lost,
        noted,
        in_spool,
        alerts_open=int(str(alerts[0])),
        alerts=int(str(alerts[1])),
        first_alert_s=float(str(alerts[2])) if alerts[2] is not None else None,
        lag_s=time.time() - float(str(newest)) if newest is not None else None,
    )


def live_line(figures: Figures, readings_per_s: float, remaining_s: float | None) -> str:
    """One line for the terminal."""
    lag = f"{figures.lag_s:4.1f} s" if figures.lag_s is not None else "   –  "
    left = f" · {remaining_s:3.0f} s left" if remaining_s is not None else ""
    sign = "=" if figures.is_balanced else "≠"
    return (
        f"{readings_per_s:7,.0f} readings/s · lag {lag} · alerts {figures.alerts_open} open of {figures.alerts} · "
        f"accepted {figures.accepted:,} {sign} stored {figures.stored:,} + dead {figures.dead_lettered:,} + "
        f"lost {figures.lost:,} + noted {figures.noted:,} + spool {figures.in_spool:,}{left}"
    )


def device_readings(connection: Connection) -> int:
    """How many readings of devices are stored (the gateways' own heartbeat left out)."""
    row = connection.execute(_DEVICE_READINGS).fetchone()
    return int(str(row[0])) if row else 0


def stored_readings(connection: Connection) -> list[ReadingKey]:
    """Everything stored that a device sent (the gateways' own heartbeat is not in the simulator's truth)."""
    rows = connection.execute(_READINGS).fetchall()
    return [(str(d), str(m), int(str(t)), float(str(v))) for d, m, t, v in rows]


def raised_alerts(connection: Connection) -> list[tuple[str, str, int, int]]:
    """(rule, object, highest level, raised_us) of every alert."""
    rows = connection.execute(_RAISED).fetchall()
    return [(str(r), str(o), int(str(level)), int(str(t))) for r, o, level, t in rows]
