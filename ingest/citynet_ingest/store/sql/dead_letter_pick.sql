-- Open letters for a redrive: the given ones, or those that a filter finds, oldest first.
SELECT d.id, d.topic
FROM dead_letter d
WHERE d.redriven_at IS NULL
  AND (%(letters)s::bigint[] IS NULL OR d.id = ANY(%(letters)s))
  AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
  AND (%(gateway)s::text IS NULL OR d.source = %(gateway)s)
  AND (%(topic)s::text IS NULL OR d.topic = %(topic)s)
  AND (%(since)s::timestamptz IS NULL OR d.at >= %(since)s)
ORDER BY d.id
LIMIT %(limit)s
