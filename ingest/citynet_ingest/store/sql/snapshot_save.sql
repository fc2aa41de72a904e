INSERT INTO engine_snapshot (claim, state) VALUES (%(claim)s, %(state)s)
ON CONFLICT (claim) DO UPDATE SET state = EXCLUDED.state, at = now()
