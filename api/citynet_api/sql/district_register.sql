-- Districts of a topology document (%(districts)s is a JSON array). What the document leaves out stays as it was.
INSERT INTO district AS d (name, label, outline)
SELECT district, label, nullif(outline, 'null'::jsonb)
FROM jsonb_to_recordset(%(districts)s::jsonb) AS e (district text, label text, outline jsonb)
ON CONFLICT (name) DO UPDATE SET
    label = coalesce(excluded.label, d.label),
    outline = coalesce(excluded.outline, d.outline)
