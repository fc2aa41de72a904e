INSERT INTO ingest_lane (lane, claim) SELECT unnest(%(lanes)s::integer[]), %(claim)s
ON CONFLICT (lane) DO UPDATE SET claim = EXCLUDED.claim
