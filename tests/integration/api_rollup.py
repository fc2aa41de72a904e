"""Rollups filled by SQL from raw readings, as ingest leaves them: late readings in partials of their own, also in the open
bucket; the main partial only of buckets that the newest reading of the series has passed; no minute of a single reading."""

from __future__ import annotations

from datetime import UTC, datetime

from citynet_ingest.rollup.partials import READINGS_MIN
from tests.integration.api_seed import Connection

_FILL = """
INSERT INTO {table} (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at)
SELECT b.at, r.series_id, count(*), count(*) FILTER (WHERE u.ok),
       coalesce(sum(r.value) FILTER (WHERE u.ok), 0),
       coalesce(min(r.value) FILTER (WHERE u.ok), 'NaN'), coalesce(max(r.value) FILTER (WHERE u.ok), 'NaN'),
       coalesce((array_agg(r.value ORDER BY r.time, r.value) FILTER (WHERE u.ok))[1], 'NaN'),
       coalesce((array_agg(r.value ORDER BY r.time DESC, r.value DESC) FILTER (WHERE u.ok))[1], 'NaN'),
       coalesce(min(r.time) FILTER (WHERE u.ok), min(r.time)), coalesce(max(r.time) FILTER (WHERE u.ok), max(r.time))
FROM reading r
CROSS JOIN LATERAL (SELECT date_bin('1 {unit}', r.time, '2001-01-01 00:00+00') AS at) b
CROSS JOIN LATERAL (
    SELECT (r.quality & 3) < 2 AND r.value > '-infinity' AND r.value < 'infinity' AS ok
) u
JOIN (SELECT series_id, max(time) AS newest FROM reading GROUP BY series_id) s ON s.series_id = r.series_id
WHERE r.series_id = ANY (%(ids)s) AND r.time >= %(since)s
  AND ((r.quality & 64) > 0 OR b.at < date_bin('1 {unit}', s.newest, '2001-01-01 00:00+00'))
GROUP BY r.series_id, b.at, r.quality & 64
HAVING count(*) >= {least}
"""
EVER = datetime(1970, 1, 1, tzinfo=UTC)


def fill(connection: Connection, ids: list[int], since: datetime = EVER) -> None:
    """Write the partials of these series for the readings from `since` on."""
    days = [
        row[0]
        for row in connection.execute(
            "SELECT DISTINCT (time AT TIME ZONE 'UTC')::date FROM reading WHERE series_id = ANY (%s)", (ids,)
        ).fetchall()
    ]
    connection.execute("SELECT ensure_rollup_partitions(%s)", (days,))
    for table, unit, least in (("rollup_minute", "minute", READINGS_MIN), ("rollup_hour", "hour", 1)):
        statement = _FILL.format(table=table, unit=unit, least=least)
        connection.execute(statement.encode(), {"ids": ids, "since": since})
