SELECT id, at, gateway, stream, epoch::text AS epoch, first, last, count, reason
FROM loss
WHERE id < %(id)s::bigint
  AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s::text)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s::text)
  AND (%(from)s::timestamptz IS NULL OR at >= %(from)s::timestamptz)
  AND (%(to)s::timestamptz IS NULL OR at < %(to)s::timestamptz)
ORDER BY id DESC
LIMIT %(limit)s::integer
