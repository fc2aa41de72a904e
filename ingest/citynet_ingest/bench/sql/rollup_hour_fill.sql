-- Partials of every hour that ingest left out, from those of its minutes.
INSERT INTO rollup_hour (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at)
SELECT h.*
FROM (
    SELECT date_trunc('hour', time, 'UTC') AS bucket, series_id, sum(n) AS n, sum(usable) AS usable, sum(sum),
           coalesce(min(min) FILTER (WHERE usable > 0), 'NaN'),
           coalesce(max(max) FILTER (WHERE usable > 0), 'NaN'),
           coalesce((array_agg(first ORDER BY first_at) FILTER (WHERE usable > 0))[1], 'NaN'),
           coalesce((array_agg(last ORDER BY last_at DESC) FILTER (WHERE usable > 0))[1], 'NaN'),
           min(first_at), max(last_at)
    FROM rollup_minute
    GROUP BY series_id, bucket
) AS h
WHERE NOT EXISTS (SELECT 1 FROM rollup_hour AS p WHERE p.series_id = h.series_id AND p.time = h.bucket)
ORDER BY h.series_id, h.bucket
