-- Late readings of these series: in the commit that stores them, series in rising order (two workers wait, and never for each other).
INSERT INTO late_span AS l (series_id, from_us, to_us, readings)
SELECT * FROM unnest(%(series)s::integer[], %(from)s::bigint[], %(to)s::bigint[], %(readings)s::bigint[])
ON CONFLICT (series_id) DO UPDATE SET
    from_us = least(l.from_us, EXCLUDED.from_us), to_us = greatest(l.to_us, EXCLUDED.to_us),
    readings = l.readings + EXCLUDED.readings, changed_at = now(), revision = l.revision + 1
