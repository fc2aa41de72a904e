INSERT INTO gateway AS g (id, last_batch_at, canary_at, delay_s)
SELECT w.id, now(), to_timestamp(w.canary_us / 1e6), extract(epoch FROM now()) - w.canary_us / 1e6
FROM unnest(%(gateways)s::text[], %(canaries)s::bigint[]) AS w (id, canary_us)
ON CONFLICT (id) DO UPDATE SET
    last_batch_at = now(),
    canary_at = coalesce(EXCLUDED.canary_at, g.canary_at),
    delay_s = coalesce(EXCLUDED.delay_s, g.delay_s)
