-- What people asked to have tried again, by id, as much as fits into `bytes` (at least one).
SELECT id, topic, source, stream, epoch, seq, records, place, detail, content_type, payload, scope, received_us, by,
       content_type_now, shard, key, key_body
FROM (
    SELECT asked.*, sum(length(payload)) OVER (ORDER BY id) - length(payload) AS before
    FROM (
        SELECT d.id, d.topic, d.source, d.stream, d.epoch, d.seq, d.records, d.place, d.detail,
               coalesce(d.content_type, '') AS content_type, d.payload, d.scope,
               coalesce(d.received_us, (extract(epoch FROM d.at) * 1000000)::bigint) AS received_us,
               q.asked_by AS by, q.content_type AS content_type_now, q.shard, d.key, d.key_body
        FROM dead_letter_redrive q
        JOIN dead_letter d ON d.id = q.letter_id
        WHERE q.shard = ANY(%(shards)s) AND d.redriven_at IS NULL
        ORDER BY d.id
        LIMIT %(letters)s
    ) AS asked
) AS summed
WHERE before < %(bytes)s
ORDER BY id
