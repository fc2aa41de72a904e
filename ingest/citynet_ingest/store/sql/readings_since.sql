-- What was stored after each series' newest reading in the snapshot and was not late: exactly what the engine missed.
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint, r.value, r.quality
FROM unnest(%(series)s::integer[], %(tips)s::timestamptz[]) AS w (series_id, tip)
CROSS JOIN LATERAL (
    SELECT r.series_id, r.time, r.value, r.quality FROM reading r
    WHERE r.series_id = w.series_id AND r.time > w.tip AND r.quality & 64 = 0
) AS r
ORDER BY r.series_id, r.time
