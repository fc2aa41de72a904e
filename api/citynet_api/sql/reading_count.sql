-- How many readings there are in stretches of many series; see reading_bucket for how a stretch is read.
WITH stretch AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::integer[], %(sources)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
        AS s (id, source, start_at, end_at)
), part AS (
    SELECT s.id, h.n
    FROM stretch s
    CROSS JOIN LATERAL (
        SELECT sum(h.n) AS n FROM rollup_hour h
        WHERE h.series_id = s.id AND h.time >= s.start_at AND h.time < s.end_at
          AND h.time >= %(from)s::timestamptz AND h.time < %(to)s::timestamptz
    ) h
    WHERE s.source = 'hour'
    UNION ALL
    SELECT s.id, m.n
    FROM stretch s
    CROSS JOIN LATERAL (
        SELECT sum(m.n) AS n FROM rollup_minute m
        WHERE m.series_id = s.id AND m.time >= s.start_at AND m.time < s.end_at
          AND m.time >= %(from)s::timestamptz AND m.time < %(to)s::timestamptz
    ) m
    WHERE s.source = 'minute'
    UNION ALL
    SELECT s.id, r.n
    FROM stretch s
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM reading r
        WHERE r.series_id = s.id AND r.time >= s.start_at AND r.time < s.end_at
          AND r.time >= %(raw_from)s::timestamptz AND r.time < %(to)s::timestamptz
    ) r
    WHERE s.source = 'raw'
)
SELECT id, coalesce(sum(n), 0)::bigint AS n FROM part GROUP BY id
