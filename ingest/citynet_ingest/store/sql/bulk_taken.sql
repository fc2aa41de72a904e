-- A series of these that has a reading, if there is one.
SELECT w.id FROM unnest(%(series)s::integer[]) AS w (id)
WHERE EXISTS (SELECT 1 FROM reading r WHERE r.series_id = w.id)
LIMIT 1
