-- Partials of every minute that ingest left out, from what is stored. A partial is over usable readings: finite, not of bad quality.
INSERT INTO rollup_minute (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at)
SELECT bucket, series_id, count(*), count(*) FILTER (WHERE good),
       coalesce(sum(value) FILTER (WHERE good), 0),
       coalesce(min(value) FILTER (WHERE good), 'NaN'),
       coalesce(max(value) FILTER (WHERE good), 'NaN'),
       coalesce((array_agg(value ORDER BY time) FILTER (WHERE good))[1], 'NaN'),
       coalesce((array_agg(value ORDER BY time DESC) FILTER (WHERE good))[1], 'NaN'),
       coalesce(min(time) FILTER (WHERE good), bucket),
       coalesce(max(time) FILTER (WHERE good), bucket)
FROM (
    SELECT date_trunc('minute', time, 'UTC') AS bucket, time, series_id, value,
           quality & 3 < 2 AND value > '-infinity' AND value < 'infinity' AS good
    FROM reading
) AS r
WHERE NOT EXISTS (SELECT 1 FROM rollup_minute AS p WHERE p.series_id = r.series_id AND p.time = r.bucket)
GROUP BY series_id, bucket
ORDER BY series_id, bucket
