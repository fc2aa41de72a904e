-- The hours of many series, in ranges of whole hours, whose minutes count other than the hours themselves: minutes leave single
-- readings out. `n` is what the hour counts, if it has a partial. `is_gone`: the raw readings are older than the oldest of the
-- series that is left, or retention took them; a late reading of then may have come since.
WITH span AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::integer[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS s (id, start_at, end_at)
), part AS (
    SELECT s.id, h.at, h.n, NULL::bigint AS minutes_n
    FROM span s
    CROSS JOIN LATERAL (
        SELECT h.time AS at, sum(h.n) AS n FROM rollup_hour h
        WHERE h.series_id = s.id AND h.time >= s.start_at AND h.time < s.end_at
          AND h.time >= %(from)s::timestamptz AND h.time < %(to)s::timestamptz
        GROUP BY h.time
    ) h
    UNION ALL
    SELECT s.id, m.at, NULL, m.n
    FROM span s
    CROSS JOIN LATERAL (
        SELECT date_trunc('hour', m.time, 'UTC') AS at, sum(m.n) AS n FROM rollup_minute m
        WHERE m.series_id = s.id AND m.time >= s.start_at AND m.time < s.end_at
          AND m.time >= %(from)s::timestamptz AND m.time < %(to)s::timestamptz
        GROUP BY 1
    ) m
), uneven AS MATERIALIZED (
    SELECT id, at, sum(n)::bigint AS n
    FROM part
    GROUP BY id, at
    HAVING sum(n) IS DISTINCT FROM sum(minutes_n)
), kept AS (
    SELECT f.id, r.time
    FROM (SELECT id, min(at) AS at FROM uneven GROUP BY id) f
    CROSS JOIN LATERAL (
        SELECT r.time FROM reading r WHERE r.series_id = f.id AND r.time >= f.at ORDER BY r.time LIMIT 1
    ) r
), gone AS MATERIALIZED (
    SELECT from_at, to_at FROM retired
    WHERE tbl = 'reading' AND from_at < %(to)s::timestamptz AND to_at > %(from)s::timestamptz
)
SELECT u.id, u.at, u.n,
       kept.time IS NULL OR kept.time >= u.at + interval '1 hour'
       OR EXISTS (SELECT FROM gone WHERE gone.from_at <= u.at AND gone.to_at > u.at) AS is_gone
FROM uneven u
LEFT JOIN kept ON kept.id = u.id
ORDER BY u.id, u.at
