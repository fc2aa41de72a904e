-- Newest first, below an id.
SELECT d.id, d.at, d.last_at, d.times, d.topic, d.source, d.stream, d.epoch, d.seq, d.records, d.reason, d.place, d.detail,
       d.content_type, length(d.payload) AS payload_bytes, d.scope, d.redrives, d.redrive_error, d.redriven_at, d.redriven_by,
       d.redriven_stored, q.asked_at
FROM dead_letter d
LEFT JOIN dead_letter_redrive q ON q.letter_id = d.id
WHERE d.id < %(before)s
  AND (%(redriven)s::boolean IS NULL OR (d.redriven_at IS NOT NULL) = %(redriven)s)
  AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
  AND (%(gateway)s::text IS NULL OR d.source = %(gateway)s)
  AND (%(topic)s::text IS NULL OR d.topic = %(topic)s)
  AND (%(since)s::timestamptz IS NULL OR d.at >= %(since)s)
ORDER BY d.id DESC
LIMIT %(limit)s
