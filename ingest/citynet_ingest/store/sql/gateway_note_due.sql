SELECT count(*), count(DISTINCT (n.at AT TIME ZONE 'UTC')::date) FROM gateway_note n
WHERE n.at < %(until)s AND NOT EXISTS (
    SELECT 1 FROM legal_hold h WHERE h.released_at IS NULL AND h.from_at <= n.at AND n.at < h.to_at
)
