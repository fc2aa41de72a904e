-- Workers of ingest: name, number of the last commit, when, seconds ago.
SELECT worker, number, at, greatest(extract(epoch FROM now() - at), 0)::float8 FROM ingest_commit ORDER BY worker
