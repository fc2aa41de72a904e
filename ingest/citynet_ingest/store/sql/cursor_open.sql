INSERT INTO stream_cursor (gateway, stream, epoch, seq)
SELECT w.gateway, w.stream, w.epoch, 0
FROM unnest(%(gateways)s::text[], %(streams)s::text[], %(epochs)s::bigint[]) AS w (gateway, stream, epoch)
ON CONFLICT (gateway, stream, epoch) DO NOTHING
