-- Of each series the newest readings, in its newest hour, that no partial of that hour counts: what its open buckets hold.
-- Late readings are in partials of their own from the moment they are stored, so what is missing is the newest of the others.
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint, r.value, r.quality
FROM unnest(%(series)s::integer[]) AS w (series_id)
CROSS JOIN LATERAL (
    SELECT date_trunc('hour', time, 'UTC') AS start FROM reading
    WHERE series_id = w.series_id AND quality & 64 = 0 ORDER BY time DESC LIMIT 1
) AS newest
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM reading WHERE series_id = w.series_id AND time >= newest.start
) AS held
CROSS JOIN LATERAL (
    SELECT coalesce(sum(n), 0)::bigint AS n FROM rollup_hour WHERE series_id = w.series_id AND time >= newest.start
) AS counted
CROSS JOIN LATERAL (
    SELECT series_id, time, value, quality FROM reading
    WHERE series_id = w.series_id AND time >= newest.start AND quality & 64 = 0
    ORDER BY time DESC LIMIT greatest(held.n - counted.n, 0)
) AS r
ORDER BY r.series_id, r.time
