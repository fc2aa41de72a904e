-- The same from raw readings, for series too young to have hours: the median distance of the newest 64 before a time.
SELECT w.id, percentile_cont(0.5) WITHIN GROUP (ORDER BY g.gap_s) AS gap_s
FROM unnest(%(ids)s::integer[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM r.time - lag(r.time) OVER (ORDER BY r.time))::double precision AS gap_s
    FROM (
        SELECT r.time FROM reading r
        WHERE r.series_id = w.id AND r.time < %(to)s::timestamptz
        ORDER BY r.time DESC
        LIMIT 64
    ) r
) g
WHERE g.gap_s > 0
GROUP BY w.id
