-- Spans of readings that retention has taken, where they touch a span.
SELECT from_at, to_at FROM retired
WHERE tbl = 'reading' AND part IS NOT NULL AND from_at < %(to_at)s AND to_at > %(from_at)s
ORDER BY from_at
