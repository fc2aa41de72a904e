-- Delete dead letters last seen before `until`, except those that a hold keeps or a redrive is going to take, and book them in
-- the same statement. A letter that was redriven is in the books as what it became.
WITH gone AS (
    DELETE FROM dead_letter d
    WHERE d.last_at < %(until)s AND NOT EXISTS (
        SELECT 1 FROM legal_hold h WHERE h.released_at IS NULL AND h.from_at <= d.last_at AND d.at < h.to_at
    ) AND NOT EXISTS (SELECT 1 FROM dead_letter_redrive q WHERE q.letter_id = d.id)
    RETURNING d.at, d.last_at, CASE WHEN d.redriven_at IS NULL THEN d.records * d.times ELSE 0 END AS records,
               octet_length(d.payload) AS bytes
)
INSERT INTO retired (actor, tbl, from_at, to_at, rows, records, bytes)
SELECT %(actor)s, 'dead_letter', min(at), max(last_at) + interval '1 us', count(*), sum(records), sum(bytes) FROM gone
HAVING count(*) > 0
RETURNING rows
