SELECT c.gateway, c.stream, c.epoch, greatest(c.claimed, c.seq), c.seq, c.stored, c.dead_lettered, c.lost, c.noted,
       (SELECT (claim->>'acked')::bigint
        FROM gateway g, jsonb_array_elements(coalesce(g.status->'claims', '[]')) AS claim
        WHERE g.id = c.gateway AND claim->>'st' = c.stream AND (claim->>'ep')::bigint = c.epoch)
FROM stream_cursor c
ORDER BY c.gateway, c.stream, c.first_at
