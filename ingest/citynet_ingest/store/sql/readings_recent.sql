-- Of series that no snapshot knows: the newest reading before `floor` (how far the series had come), and all after it.
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint, r.value, r.quality
FROM unnest(%(series)s::integer[]) AS w (series_id)
CROSS JOIN LATERAL (
    (SELECT r.series_id, r.time, r.value, r.quality FROM reading r
     WHERE r.series_id = w.series_id AND r.time <= %(floor)s AND r.quality & 64 = 0 ORDER BY r.time DESC LIMIT 1)
    UNION ALL
    SELECT r.series_id, r.time, r.value, r.quality FROM reading r
    WHERE r.series_id = w.series_id AND r.time > %(floor)s AND r.quality & 64 = 0
) AS r
ORDER BY r.series_id, r.time
