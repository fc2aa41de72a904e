INSERT INTO direct_tally AS t (worker, stored, dead_lettered, duplicates)
VALUES (%(worker)s, %(stored)s, %(dead_lettered)s, %(duplicates)s)
ON CONFLICT (worker) DO UPDATE SET
    stored = t.stored + EXCLUDED.stored,
    dead_lettered = t.dead_lettered + EXCLUDED.dead_lettered,
    duplicates = t.duplicates + EXCLUDED.duplicates
