-- Readings of many series in buckets aligned to a Monday 00:00 UTC, each stretch of a series taken from where
-- citynet_api.sources says: hour partials, minute partials, or raw rows. OFFSET 0 keeps each look-up an index range of one
-- series, whatever the statistics say; the constant bounds let the planner leave out partitions and chunks.
-- Readings that are bad or not finite count in n and take no part in the figures. A sum beyond a double's range is infinite
-- instead of an error. First and last are those of least and greatest (time, value), as in the rollups.
WITH stretch AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::integer[], %(sources)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
        AS s (id, source, start_at, end_at)
), part AS (
    SELECT s.id, date_bin(make_interval(secs => %(bucket_s)s::integer), h.time, timestamptz '2001-01-01 00:00+00') AS at,
           h.n, h.usable, h.sum, h.min, h.max, h.first, h.last, h.first_at, h.last_at
    FROM stretch s
    CROSS JOIN LATERAL (
        SELECT * FROM rollup_hour h
        WHERE h.series_id = s.id AND h.time >= s.start_at AND h.time < s.end_at
          AND h.time >= %(from)s::timestamptz AND h.time < %(to)s::timestamptz
        OFFSET 0
    ) h
    WHERE s.source = 'hour'
    UNION ALL
    SELECT s.id, date_bin(make_interval(secs => %(bucket_s)s::integer), m.time, timestamptz '2001-01-01 00:00+00'),
           m.n, m.usable, m.sum, m.min, m.max, m.first, m.last, m.first_at, m.last_at
    FROM stretch s
    CROSS JOIN LATERAL (
        SELECT * FROM rollup_minute m
        WHERE m.series_id = s.id AND m.time >= s.start_at AND m.time < s.end_at
          AND m.time >= %(from)s::timestamptz AND m.time < %(to)s::timestamptz
        OFFSET 0
    ) m
    WHERE s.source = 'minute'
    UNION ALL
    SELECT s.id, r.at, r.n, r.usable, r.sum, r.min, r.max, r.usables[1], r.usables[r.usable], r.first_at, r.last_at
    FROM stretch s
    CROSS JOIN LATERAL (
        SELECT date_bin(make_interval(secs => %(bucket_s)s::integer), r.time, timestamptz '2001-01-01 00:00+00') AS at,
               count(*) AS n,
               count(*) FILTER (WHERE f.usable) AS usable,
               sum(CASE WHEN r.value > 1e300 THEN 'infinity' WHEN r.value < -1e300 THEN '-infinity' ELSE r.value END)
                   FILTER (WHERE f.usable) AS sum,
               min(r.value) FILTER (WHERE f.usable) AS min,
               max(r.value) FILTER (WHERE f.usable) AS max,
               array_agg(r.value ORDER BY r.time, r.value) FILTER (WHERE f.usable) AS usables,
               min(r.time) FILTER (WHERE f.usable) AS first_at,
               max(r.time) FILTER (WHERE f.usable) AS last_at
        FROM reading r
        CROSS JOIN LATERAL (
            SELECT (r.quality & 3) < 2 AND r.value > '-infinity' AND r.value < 'infinity' AS usable
        ) f
        WHERE r.series_id = s.id AND r.time >= s.start_at AND r.time < s.end_at
          AND r.time >= %(raw_from)s::timestamptz AND r.time < %(to)s::timestamptz
        GROUP BY 1
    ) r
    WHERE s.source = 'raw'
)
SELECT id, at, sum(n)::bigint AS count, sum(usable)::bigint AS usable,
       min(min) FILTER (WHERE usable > 0) AS min,
       max(max) FILTER (WHERE usable > 0) AS max,
       sum(CASE WHEN sum > 1e300 THEN 'infinity' WHEN sum < -1e300 THEN '-infinity' ELSE sum END)
           FILTER (WHERE usable > 0) / nullif(sum(usable), 0) AS avg,
       (array_agg(first ORDER BY first_at, first) FILTER (WHERE usable > 0))[1] AS first,
       (array_agg(last ORDER BY last_at DESC, last DESC) FILTER (WHERE usable > 0))[1] AS last
FROM part
GROUP BY id, at
ORDER BY id, at
