INSERT INTO stream_cursor AS c (gateway, stream, epoch, seq, claimed)
SELECT w.gateway, w.stream, w.epoch, 0, w.claimed
FROM unnest(%(gateways)s::text[], %(streams)s::text[], %(epochs)s::bigint[], %(claimed)s::bigint[])
     AS w (gateway, stream, epoch, claimed)
ON CONFLICT (gateway, stream, epoch) DO UPDATE SET claimed = EXCLUDED.claimed WHERE c.claimed < EXCLUDED.claimed
