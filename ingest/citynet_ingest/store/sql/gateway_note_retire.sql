-- The same for clock and event notes.
WITH gone AS (
    DELETE FROM gateway_note n
    WHERE n.at < %(until)s AND NOT EXISTS (
        SELECT 1 FROM legal_hold h WHERE h.released_at IS NULL AND h.from_at <= n.at AND n.at < h.to_at
    )
    RETURNING n.at, pg_column_size(n.body) AS bytes
)
INSERT INTO retired (actor, tbl, from_at, to_at, rows, records, bytes)
SELECT %(actor)s, 'gateway_note', min(at), max(at) + interval '1 us', count(*), count(*), sum(bytes) FROM gone
HAVING count(*) > 0
RETURNING rows
