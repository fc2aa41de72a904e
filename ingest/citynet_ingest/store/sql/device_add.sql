-- Only the absent ones are inserted: a conflict would burn an id each time.
INSERT INTO device (name, source)
SELECT DISTINCT ON (w.name) w.name, w.source
FROM unnest(%(names)s::text[], %(sources)s::text[]) AS w (name, source)
WHERE NOT EXISTS (SELECT 1 FROM device d WHERE d.name = w.name)
ORDER BY w.name
ON CONFLICT (name) DO NOTHING
