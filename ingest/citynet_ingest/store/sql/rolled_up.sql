-- Readings in the rollups of a span, by the index of each series.
SELECT coalesce(sum(r.n), 0)::bigint
FROM series s
CROSS JOIN LATERAL (
    SELECT sum(n) AS n FROM {rollup} WHERE series_id = s.id AND time >= %(from_at)s AND time < %(to_at)s
) AS r
