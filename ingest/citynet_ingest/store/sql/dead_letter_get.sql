SELECT d.id, d.at, d.last_at, d.times, d.topic, d.source, d.stream, d.epoch, d.seq, d.records, d.reason, d.place, d.detail,
       d.content_type, length(d.payload) AS payload_bytes, d.scope, d.redrives, d.redrive_error, d.redriven_at, d.redriven_by,
       d.redriven_stored, q.asked_at, d.payload
FROM dead_letter d
LEFT JOIN dead_letter_redrive q ON q.letter_id = d.id
WHERE d.id = %(id)s
