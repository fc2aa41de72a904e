-- Newest first, below an id.
SELECT id, at, gateway, stream, epoch, first, last, count, reason
FROM loss
WHERE id < %(before)s
  AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
ORDER BY id DESC
LIMIT %(limit)s
