-- Delete dead letters last seen before `until`, except those that a hold keeps, and book them in the same statement.
WITH gone AS (
    DELETE FROM dead_letter d
    WHERE d.last_at < %(until)s AND NOT EXISTS (
        SELECT 1 FROM legal_hold h WHERE h.released_at IS NULL AND h.from_at <= d.last_at AND d.at < h.to_at
    )
    RETURNING d.at, d.last_at, d.records * d.times AS records, octet_length(d.payload) AS bytes
)
INSERT INTO retired (actor, tbl, from_at, to_at, rows, records, bytes)
SELECT %(actor)s, 'dead_letter', min(at), max(last_at) + interval '1 us', count(*), sum(records), sum(bytes) FROM gone
HAVING count(*) > 0
RETURNING rows
