INSERT INTO ingest_commit AS c (worker, number) VALUES (%(worker)s, 0)
ON CONFLICT (worker) DO UPDATE SET number = c.number
RETURNING number
