-- Partials of every minute of several readings that ingest has not closed, from what is stored. A partial is over usable readings: finite, not of bad
-- quality.
INSERT INTO rollup_minute (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at)
SELECT m.*
FROM (
    SELECT bucket, series_id, count(*) AS n, count(*) FILTER (WHERE good) AS usable,
           coalesce(sum(value) FILTER (WHERE good), 0),
           coalesce(min(value) FILTER (WHERE good), 'NaN'),
           coalesce(max(value) FILTER (WHERE good), 'NaN'),
           coalesce((min(ARRAY[at_s, value]) FILTER (WHERE good))[2], 'NaN'),
           coalesce((max(ARRAY[at_s, value]) FILTER (WHERE good))[2], 'NaN'),
           coalesce(min(time) FILTER (WHERE good), bucket),
           coalesce(max(time) FILTER (WHERE good), bucket)
    FROM (
        SELECT date_trunc('minute', time, 'UTC') AS bucket, time, series_id, value,
               date_part('epoch', time) AS at_s,
               quality & 3 < 2 AND value > '-infinity' AND value < 'infinity' AS good
        FROM reading
    ) AS r
    GROUP BY series_id, bucket
    HAVING count(*) > 1
) AS m
WHERE NOT EXISTS (SELECT 1 FROM rollup_minute AS p WHERE p.series_id = m.series_id AND p.time = m.bucket)
ORDER BY m.series_id, m.bucket
