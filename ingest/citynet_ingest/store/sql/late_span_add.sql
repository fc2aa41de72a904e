-- Late readings of these series: in the commit that stores them, series in rising order (two workers wait, and never for each other).
INSERT INTO late_span AS l (series_id, from_at, to_at, readings)
SELECT * FROM unnest(%(series)s::integer[], %(from)s::timestamptz[], %(to)s::timestamptz[], %(readings)s::bigint[])
ON CONFLICT (series_id) DO UPDATE SET
    from_at = least(l.from_at, EXCLUDED.from_at), to_at = greatest(l.to_at, EXCLUDED.to_at),
    readings = l.readings + EXCLUDED.readings, changed_at = now(), revision = l.revision + 1
