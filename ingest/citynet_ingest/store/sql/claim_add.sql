INSERT INTO ingest_claim (owner, lanes) VALUES (%(owner)s, %(lanes)s::integer[]) RETURNING id
