-- Gateways by id, each with its twenty most recent streams; the backlog is over all of them.
SELECT g.id, g.online, g.first_seen_at, g.status_at, g.last_batch_at, g.status, g.canary_at, g.delay_s,
       (SELECT max(e.last_at) FROM system_event e WHERE e.kind = 'gateway_cloned' AND e.object = g.id) AS cloned_at,
       books.backlog, coalesce(books.streams, '[]'::jsonb) AS streams
FROM gateway g
LEFT JOIN LATERAL (
    SELECT sum(c.backlog) AS backlog, jsonb_agg(to_jsonb(c) - 'place' ORDER BY c.place) FILTER (WHERE c.place <= 20) AS streams
    FROM (
        SELECT k.stream, k.epoch::text AS epoch, k.seq, k.claimed, greatest(k.claimed - k.seq, 0) AS backlog, k.stored,
               k.dead_lettered, k.lost, k.updated_at, row_number() OVER (ORDER BY k.updated_at DESC, k.stream) AS place
        FROM stream_cursor k
        WHERE k.gateway = g.id
    ) c
) books ON true
WHERE g.id > %(after)s::text
  AND (%(online)s::boolean IS NULL OR g.online = %(online)s::boolean)
ORDER BY g.id
LIMIT %(limit)s::integer
