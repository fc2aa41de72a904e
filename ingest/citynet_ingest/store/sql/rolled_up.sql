-- Readings in the rollups of a span, by the index of each series. Minutes leave single readings out, which their hours count:
-- of an hour that has partials of both levels the greater number counts. Asked of the hours alone that is their own.
SELECT coalesce(sum(r.n), 0)::bigint
FROM series s
CROSS JOIN LATERAL (
    SELECT greatest(sum(p.n) FILTER (WHERE p.is_asked), sum(p.n) FILTER (WHERE NOT p.is_asked)) AS n
    FROM (
        SELECT date_trunc('hour', time, 'UTC') AS hour, n, true AS is_asked FROM {rollup}
        WHERE series_id = s.id AND time >= %(from_at)s AND time < %(to_at)s
        UNION ALL
        SELECT time, n, false FROM rollup_hour
        WHERE series_id = s.id AND time >= %(from_at)s AND time < %(to_at)s
    ) AS p
    GROUP BY p.hour
) AS r
