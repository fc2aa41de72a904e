-- What there is of each series around [from, to): its newest reading ever, its oldest raw reading in the range, and the
-- first buckets of both rollups in it. A few index descents a series. And how far the minutes of the open hour are complete, if
-- that is in the range: those from its beginning on without a gap, if the hour has no partial, so that nothing in it was late. A
-- minute without a partial is a gap; a single reading of it was left out.
SELECT w.id, newest.time AS newest_at, oldest.time AS oldest_at, minute.time AS minutes_at,
       minute.n AS minutes_n, hour.time AS hours_at, hour.n AS hours_n, solid.to_at AS solid_to
FROM unnest(%(ids)s::integer[]) AS w (id)
LEFT JOIN LATERAL (
    SELECT r.time FROM reading r WHERE r.series_id = w.id ORDER BY r.time DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT r.time FROM reading r
    WHERE r.series_id = w.id AND r.time >= %(from)s::timestamptz AND r.time < %(to)s::timestamptz
    ORDER BY r.time LIMIT 1
) oldest ON true
LEFT JOIN LATERAL (
    SELECT m.time, m.n FROM rollup_minute m
    WHERE m.series_id = w.id AND m.time >= %(from)s::timestamptz AND m.time < %(to)s::timestamptz
    ORDER BY m.time LIMIT 1
) minute ON true
LEFT JOIN LATERAL (
    SELECT h.time, h.n FROM rollup_hour h
    WHERE h.series_id = w.id AND h.time >= %(from)s::timestamptz AND h.time < %(to)s::timestamptz
    ORDER BY h.time LIMIT 1
) hour ON true
LEFT JOIN LATERAL (
    SELECT max(g.time) + interval '1 minute' AS to_at
    FROM (
        SELECT d.time, d.time - (row_number() OVER (ORDER BY d.time) - 1) * interval '1 minute' AS begin_at
        FROM (
            SELECT DISTINCT m.time FROM rollup_minute m
            WHERE m.series_id = w.id AND m.time >= date_trunc('hour', newest.time, 'UTC')
              AND m.time < date_trunc('minute', newest.time, 'UTC')
        ) d
    ) g
    WHERE g.begin_at = date_trunc('hour', newest.time, 'UTC')
      AND newest.time >= %(from)s::timestamptz AND date_trunc('hour', newest.time, 'UTC') < %(to)s::timestamptz
      AND NOT EXISTS (
          SELECT FROM rollup_hour h WHERE h.series_id = w.id AND h.time >= date_trunc('hour', newest.time, 'UTC')
      )
) solid ON true
