SELECT tbl, part, from_at, to_at FROM retired
WHERE part IS NOT NULL AND from_at < %(to_at)s AND to_at > %(from_at)s
ORDER BY tbl, from_at
