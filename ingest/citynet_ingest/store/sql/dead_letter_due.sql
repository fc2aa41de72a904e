SELECT count(*), count(DISTINCT (d.last_at AT TIME ZONE 'UTC')::date) FROM dead_letter d
WHERE d.last_at < %(until)s AND NOT EXISTS (
    SELECT 1 FROM legal_hold h WHERE h.released_at IS NULL AND h.from_at <= d.last_at AND d.at < h.to_at
) AND NOT EXISTS (SELECT 1 FROM dead_letter_redrive q WHERE q.letter_id = d.id)
