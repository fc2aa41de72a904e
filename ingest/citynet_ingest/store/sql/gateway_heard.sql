INSERT INTO gateway (id, last_batch_at) SELECT unnest(%(gateways)s::text[]), now()
ON CONFLICT (id) DO UPDATE SET last_batch_at = now()
