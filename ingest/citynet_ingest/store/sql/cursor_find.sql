SELECT c.gateway, c.stream, c.epoch, c.seq
FROM unnest(%(gateways)s::text[], %(streams)s::text[], %(epochs)s::bigint[]) AS w (gateway, stream, epoch)
JOIN stream_cursor c USING (gateway, stream, epoch)
