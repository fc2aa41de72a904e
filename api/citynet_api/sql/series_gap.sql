-- How far apart the readings of each series usually are: the median over its newest 48 hours with readings before a time. Of
-- an hour with several it is their mean distance, which an outage at the hour's edge leaves alone; of an hour with a single
-- one the distance to the one before.
SELECT w.id, percentile_cont(0.5) WITHIN GROUP (ORDER BY g.gap_s) AS gap_s
FROM unnest(%(ids)s::integer[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT CASE WHEN b.n >= 2 AND b.last_at > b.first_at
                THEN extract(epoch FROM b.last_at - b.first_at)::double precision / (b.n - 1)
                ELSE extract(epoch FROM b.first_at - lag(b.last_at) OVER (ORDER BY b.time))::double precision
           END AS gap_s
    FROM (
        SELECT h.time, sum(h.n) AS n, min(h.first_at) AS first_at, max(h.last_at) AS last_at
        FROM (
            SELECT h.time, h.n, h.first_at, h.last_at
            FROM rollup_hour h
            WHERE h.series_id = w.id AND h.time < %(to)s::timestamptz AND h.usable > 0
            ORDER BY h.time DESC
            LIMIT 48
        ) h
        GROUP BY h.time
    ) b
) g
WHERE g.gap_s > 0
GROUP BY w.id
