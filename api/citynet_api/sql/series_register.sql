-- Series of the same document; runs after device_register, so every device is there.
WITH entry AS (
    SELECT d.id AS device_id, s.metric, s.unit, s.low, s.high, s.interval_s
    FROM jsonb_to_recordset(%(devices)s::jsonb) AS e (device text, series jsonb)
    JOIN device d ON d.name = e.device
    CROSS JOIN LATERAL jsonb_to_recordset(e.series)
        AS s (metric text, unit text, low double precision, high double precision, interval_s double precision)
), written AS (
    INSERT INTO series AS s (device_id, metric, unit, low, high, interval_s, registered)
    SELECT device_id, metric, unit, low, high, interval_s, true FROM entry ORDER BY device_id, metric
    ON CONFLICT (device_id, metric) DO UPDATE SET
        unit = coalesce(excluded.unit, s.unit),
        low = coalesce(excluded.low, s.low),
        high = coalesce(excluded.high, s.high),
        interval_s = coalesce(excluded.interval_s, s.interval_s),
        registered = true
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) AS series, count(*) FILTER (WHERE is_new) AS series_new FROM written
