"""A small city written into the database by SQL, as ingest would have left it, for the tests of the api and the console."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

NOW = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
Connection = psycopg.Connection[tuple[Any, ...]]

RULES: dict[str, dict[str, Any]] = {
    "gas-ch4-void": {
        "id": "gas-ch4-void",
        "domain": "gas",
        "unit": "%LEL",
        "metric": "ch4_lel",
        "title_zh": "燃气井甲烷浓度高",
        "title_en": "Methane high in a gas well",
        "standard": "CJJ 51",
        "edition": "2016",
        "clause": None,
        "status": "C",
        "jurisdiction": "CN",
        "guidance_zh": "立即通知燃气公司抢修队；周边 30 米内禁止明火，打开相邻井盖通风。\n"
        "复测相邻两井：两井同时上升说明是泄漏而不是沼气。",
        "guidance_en": "Call the gas utility's emergency crew now; no naked flame within 30 m, open the covers next to it.\n"
        "Measure the two neighbouring wells: both rising together means a leak, not sewer biogas.",
    },
    "drainage-ponding": {
        "id": "drainage-ponding",
        "domain": "drainage",
        "unit": "cm",
        "metric": "ponding_cm",
        "title_zh": "道路积水",
        "title_en": "Ponding on the road",
        "standard": None,
        "edition": None,
        "status": "D",
        "guidance_zh": "核对雨情和泵站状态；积水超过 25 厘米时封闭道路。",
        "guidance_en": "Check the rain and the pump station; above 25 cm close the road.",
    },
    "water-pressure-low": {
        "id": "water-pressure-low",
        "domain": "water",
        "unit": "MPa",
        "metric": "water_pressure_mpa",
        "title_zh": "供水压力低",
        "title_en": "Water pressure low",
        "standard": "GB 55036",
        "edition": "2022",
        "clause": "3.0.3",
        "status": "Q",
        "guidance_zh": "查看同一分区其他压力点；都低则可能是爆管。",
        "guidance_en": "Look at the other gauges of the district; if all are low it may be a burst main.",
    },
    "device-battery-low": {
        "id": "device-battery-low",
        "domain": "device",
        "unit": "%",
        "metric": "battery_pct",
        "title_zh": "设备电量低",
        "title_en": "Battery low",
        "standard": None,
        "edition": None,
        "status": "D",
        "guidance_zh": "下一班次更换电池。",
        "guidance_en": "Change the battery on the next shift.",
    },
}


def alert_id(rule: str, device: str, raised_at: datetime) -> str:
    """An identity computed from rule, object and raise time."""
    return hashlib.sha256(f"{rule}|{device}|{raised_at.isoformat()}".encode()).hexdigest()[:32]


def add_rules(connection: Connection) -> None:
    for name, body in RULES.items():
        connection.execute(
            "INSERT INTO rule (id, version, body) VALUES (%s, '1', %s) ON CONFLICT DO NOTHING", (name, Jsonb(body))
        )


def add_series(connection: Connection, device: str, metric: str, **about: Any) -> int:
    """A device (if new) and one of its series; returns the series id."""
    given = {"gateway": "gw-01", "kind": None, "district": None, "lon": None, "lat": None, "unit": None, **about}
    connection.execute(
        "INSERT INTO device (name, source, kind, district, lon, lat) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (device, given["gateway"], given["kind"], given["district"], given["lon"], given["lat"]),
    )
    row = connection.execute(
        "INSERT INTO series (device_id, metric, unit) SELECT id, %s, %s FROM device WHERE name = %s RETURNING id",
        (metric, given["unit"], device),
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_readings(connection: Connection, series_id: int, rows: list[tuple[datetime, float, int]]) -> None:
    days = sorted({at.astimezone(UTC).date() for at, _, _ in rows})
    connection.execute("SELECT ensure_reading_partitions(%s)", (days,))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO reading (time, series_id, value, quality) VALUES (%s, %s, %s, %s)",
            [(at, series_id, value, quality) for at, value, quality in rows],
        )


def add_alert(
    connection: Connection,
    rule: str,
    device: str,
    series_id: int,
    level: int,
    raised_at: datetime,
    *,
    value: float | None = 55.2,
    limit: float | None = 50.0,
    evidence: Mapping[str, Any] | None = None,
    cleared_at: datetime | None = None,
) -> str:
    """An alert with its transitions, in one transaction, as ingest writes it: lock, rows, notification."""
    body = RULES[rule]
    name = alert_id(rule, device, raised_at)
    texts = (f"{device} 当前 {value} {body['unit']}", f"{device} reads {value} {body['unit']}")
    with connection.transaction():
        connection.execute("SELECT lock_transitions()")
        connection.execute(
            "INSERT INTO alert (id, rule_id, rule_version, domain, object, series_id, level, level_max, raised_at,"
            " changed_at, cleared_at, value, limit_value, title_zh, title_en, text_zh, text_en)"
            " VALUES (%s, %s, '1', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(name, rule, body["domain"], device, series_id, level, level, raised_at),
                *(cleared_at or raised_at, cleared_at, value, limit, body["title_zh"], body["title_en"], *texts),
            ),
        )
        add_transition(connection, name, "raise", level, raised_at, value, limit, evidence or {})
        if cleared_at is not None:
            add_transition(connection, name, "clear", level, cleared_at, 0.0, limit, {})
        connection.execute("NOTIFY citynet_alert")
    return name


def add_transition(
    connection: Connection,
    alert: str,
    kind: str,
    level: int,
    at: datetime,
    value: float | None,
    limit: float | None,
    evidence: Mapping[str, Any],
) -> int:
    row = connection.execute(
        "INSERT INTO alert_transition (alert_id, kind, level, at, value, limit_value, evidence, text_zh, text_en)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (alert, kind, level, at, value, limit, Jsonb(dict(evidence)), f"第 {level} 级", f"level {level}"),
    ).fetchone()
    assert row is not None
    return int(row[0])


def clear_alert(connection: Connection, alert: str, at: datetime, value: float) -> None:
    """The condition is over."""
    with connection.transaction():
        connection.execute("SELECT lock_transitions()")
        connection.execute(
            "UPDATE alert SET cleared_at = %s, changed_at = %s, value = %s WHERE id = %s", (at, at, value, alert)
        )
        add_transition(connection, alert, "clear", 1, at, value, None, {})
        connection.execute("NOTIFY citynet_alert")


def add_gateway(
    connection: Connection, name: str, *, online: bool, at: datetime, status: Mapping[str, Any] | None = None
) -> None:
    connection.execute(
        "INSERT INTO gateway (id, online, status, status_at, last_batch_at) VALUES (%s, %s, %s, %s, %s)",
        (name, online, Jsonb(dict(status)) if status is not None else None, at, at),
    )


def add_token(connection: Connection, name: str, role: str, token: str, expires: str | None = None) -> str:
    """A token whose text the test knows."""
    connection.execute(
        "INSERT INTO api_token (name, role, digest, expires_at) VALUES (%s, %s, %s, %s)",
        (name, role, hashlib.sha256(token.encode()).digest(), expires),
    )
    return token


def gas_curve(
    raised_at: datetime, *, before_s: int = 1800, after_s: int = 300, step_s: int = 5
) -> list[tuple[datetime, float, int]]:
    """Methane of a well that begins to leak half an hour before `after_s` is over: calm, then a fast rise."""
    rows = []
    for second in range(-before_s, after_s, step_s):
        calm = 3.0 + 0.8 * math.sin(second / 140.0) + 0.3 * math.sin(second / 17.0)
        leak = 52.0 / (1.0 + math.exp(-(second + 150) / 50.0))
        rows.append((raised_at + timedelta(seconds=second), round(calm + leak, 1), 0))
    return rows


def seed_city(connection: Connection, now: datetime) -> dict[str, str]:
    """A night in a small city: alerts of every level, one acknowledged, gateways, curves. Returns alert ids by a short name."""
    add_rules(connection)
    status = {
        "version": "0.1.0",
        "clock": "synced",
        "full": False,
        "spool_bytes": 3 << 20,
        "spool_bytes_max": 256 << 20,
    }
    add_gateway(connection, "gw-01", online=True, at=now, status=status)
    add_gateway(connection, "gw-02", online=True, at=now, status={**status, "spool_bytes": 120 << 20})
    add_gateway(connection, "gw-03", online=False, at=now - timedelta(minutes=40), status=status)
    connection.execute(
        "INSERT INTO stream_cursor (gateway, stream, epoch, seq, stored, claimed) VALUES"
        " ('gw-01', 'telemetry', 9007199254740993, 5000, 5000, 5200), ('gw-02', 'telemetry', 77, 900, 900, 900)"
    )
    where = {"lon": 117.2272, "lat": 31.8206}
    gas = add_series(connection, "gas-0017", "ch4_lel", kind="gas_well", district="庐阳区", unit="%LEL", **where)
    gas2 = add_series(connection, "gas-0018", "ch4_lel", kind="gas_well", district="庐阳区", unit="%LEL", **where)
    pond = add_series(connection, "mh-0042", "ponding_cm", kind="manhole", district="蜀山区", unit="cm", **where)
    water = add_series(
        connection, "dma-0003", "water_pressure_mpa", kind="district_meter", district="包河区", unit="MPa", **where
    )
    battery = add_series(connection, "mh-0108", "battery_pct", kind="manhole", district="瑶海区", unit="%", **where)
    leak_at = now - timedelta(minutes=4)
    add_readings(connection, gas, gas_curve(leak_at, after_s=240))
    minute = timedelta(minutes=1)
    add_readings(connection, pond, [(now - k * minute, max(0.0, 16.5 - 0.3 * k), 0) for k in range(60)])
    add_readings(
        connection,
        water,
        [(now - k * minute, 0.131 + 0.002 * math.sin(k) + (0.08 if k > 22 else 0.0), 0) for k in range(90)],
    )
    add_readings(connection, gas2, [(now - k * minute, 2.0 + math.sin(k / 5), 0) for k in range(120)])
    samples = [
        [int((leak_at + timedelta(seconds=s)).timestamp() * 1e6), v] for s, v in ((-30, 50.8), (-15, 53.0), (0, 55.2))
    ]
    evidence = {
        **{key: RULES["gas-ch4-void"].get(key) for key in ("unit", "standard", "edition", "clause", "status")},
        "basis": "%LEL",
        "hysteresis": 2.0,
        "on_delay_s": 30,
        "off_delay_s": 60,
        "pending_since_us": samples[0][0],
        "samples": samples,
    }
    return {
        "gas": add_alert(connection, "gas-ch4-void", "gas-0017", gas, 4, leak_at, evidence=evidence),
        "pond": add_alert(connection, "drainage-ponding", "mh-0042", pond, 3, now - 7 * minute, value=15.4, limit=15.0),
        "water": add_alert(connection, "water-pressure-low", "dma-0003", water, 2, now - 22 * minute, value=0.131, limit=0.14),
        "battery": add_alert(
            connection, "device-battery-low", "mh-0108", battery, 1, now - 340 * minute, value=19.0, limit=20.0
        ),
        "old": add_alert(
            connection, "gas-ch4-void", "gas-0018", gas2, 3, now - 300 * minute, value=31.0, limit=20.0,
            cleared_at=now - 250 * minute,
        ),
    }  # fmt: skip
