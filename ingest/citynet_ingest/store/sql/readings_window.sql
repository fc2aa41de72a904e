-- The readings of a series from a time on, late ones too, the earliest first, no more than a bound.
SELECT (extract(epoch FROM time) * 1000000)::bigint, value, quality FROM reading
WHERE series_id = %(series)s AND time >= %(from_at)s AND time < %(to_at)s ORDER BY time LIMIT %(limit)s
