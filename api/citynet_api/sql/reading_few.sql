-- The first rows of each series in a range, ascending: one more than wanted tells that there are too many for raw points.
SELECT w.id, r.time AS at, r.value, r.quality
FROM unnest(%(ids)s::integer[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT r.time, r.value, r.quality
    FROM reading r
    WHERE r.series_id = w.id AND r.time >= %(from)s::timestamptz AND r.time < %(to)s::timestamptz
    ORDER BY r.time
    LIMIT %(limit)s::integer
) r
ORDER BY w.id, r.time, r.value, r.quality
