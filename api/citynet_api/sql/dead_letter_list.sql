SELECT id, at, last_at, times, topic, source, stream, epoch::text AS epoch, seq, records, reason, place, detail, content_type,
       redrives, redrive_error, redriven_at,
       length(payload) AS payload_bytes, substr(payload, 1, 200) AS payload_start
FROM dead_letter
WHERE (at, id) < (%(at)s::timestamptz, %(id)s::bigint)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s::text)
  AND (%(source)s::text IS NULL OR source = %(source)s::text)
  AND (%(from)s::timestamptz IS NULL OR at >= %(from)s::timestamptz)
  AND (%(to)s::timestamptz IS NULL OR at < %(to)s::timestamptz)
ORDER BY at DESC, id DESC
LIMIT %(limit)s::integer
