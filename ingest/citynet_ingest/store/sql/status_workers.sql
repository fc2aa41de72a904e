-- Workers of ingest: name, number of the last commit, when, seconds ago.
SELECT owner, number, at, greatest(extract(epoch FROM now() - at), 0)::float8 FROM ingest_claim WHERE NOT revoked ORDER BY owner
