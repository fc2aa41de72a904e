-- Both levels of some series in one span of whole hours, anew from the readings. One statement, so one snapshot: a commit that
-- comes meanwhile is either in it, with its readings and its partials, or not at all. Only buckets before the one of the newest
-- reading, because that one is open in a worker; only buckets that have readings, because older ones may have outlived theirs.
-- A minute of a single reading goes and is not put back; its hour counts it.
WITH tip AS MATERIALIZED (
    SELECT w.series_id, newest.time
    FROM unnest(%(series)s::integer[]) AS w (series_id)
    CROSS JOIN LATERAL (
        SELECT time FROM reading WHERE series_id = w.series_id AND time >= %(start)s ORDER BY time DESC LIMIT 1
    ) AS newest
), row AS (
    SELECT r.series_id, r.time, r.value, date_trunc('minute', r.time, 'UTC') AS start,
           r.quality & 2 = 0 AND r.value > '-Infinity' AND r.value < 'Infinity' AS usable
    FROM tip JOIN reading r ON r.series_id = tip.series_id
    WHERE r.time >= %(start)s AND r.time < %(stop)s AND r.time < date_trunc('minute', tip.time, 'UTC')
), minute AS MATERIALIZED (
    SELECT series_id, start AS time, count(*) AS n, count(*) FILTER (WHERE usable) AS usable,
           coalesce(sum(CASE WHEN abs(value) < 1e300 THEN value ELSE sign(value) * 'Infinity'::float8 END)
                    FILTER (WHERE usable), 0) AS sum,
           coalesce(min(value) FILTER (WHERE usable), 'NaN') AS min,
           coalesce(max(value) FILTER (WHERE usable), 'NaN') AS max,
           coalesce((array_agg(value ORDER BY time, value) FILTER (WHERE usable))[1], 'NaN') AS first,
           coalesce((array_agg(value ORDER BY time DESC, value DESC) FILTER (WHERE usable))[1], 'NaN') AS last,
           coalesce(min(time) FILTER (WHERE usable), start) AS first_at,
           coalesce(max(time) FILTER (WHERE usable), start) AS last_at
    FROM row GROUP BY series_id, start
), hour AS MATERIALIZED (
    SELECT m.series_id, date_trunc('hour', m.time, 'UTC') AS time, sum(n) AS n, sum(usable) AS usable,
           sum(sum) AS sum,
           coalesce(min(min) FILTER (WHERE usable > 0), 'NaN') AS min,
           coalesce(max(max) FILTER (WHERE usable > 0), 'NaN') AS max,
           coalesce((array_agg(first ORDER BY m.time) FILTER (WHERE usable > 0))[1], 'NaN') AS first,
           coalesce((array_agg(last ORDER BY m.time DESC) FILTER (WHERE usable > 0))[1], 'NaN') AS last,
           coalesce(min(first_at) FILTER (WHERE usable > 0), date_trunc('hour', m.time, 'UTC')) AS first_at,
           coalesce(max(last_at) FILTER (WHERE usable > 0), date_trunc('hour', m.time, 'UTC')) AS last_at
    FROM minute m JOIN tip ON tip.series_id = m.series_id
    WHERE m.time < date_trunc('hour', tip.time, 'UTC')
    GROUP BY m.series_id, date_trunc('hour', m.time, 'UTC')
), gone_minute AS (
    DELETE FROM rollup_minute p USING minute m
    WHERE p.series_id = m.series_id AND p.time = m.time AND p.time >= %(start)s AND p.time < %(stop)s
), gone_hour AS (
    DELETE FROM rollup_hour p USING hour h
    WHERE p.series_id = h.series_id AND p.time = h.time AND p.time >= %(start)s AND p.time < %(stop)s
), put_minute AS (
    INSERT INTO rollup_minute (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at)
    SELECT time, series_id, n, usable, sum, min, max, first, last, first_at, last_at FROM minute
    WHERE n > 1
    ORDER BY series_id, time RETURNING 1
), put_hour AS (
    INSERT INTO rollup_hour (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at)
    SELECT time, series_id, n, usable, sum, min, max, first, last, first_at, last_at FROM hour
    ORDER BY series_id, time RETURNING 1
)
SELECT (SELECT count(*) FROM put_minute), (SELECT count(*) FROM put_hour)
