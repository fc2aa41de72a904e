INSERT INTO engine_snapshot (worker, state) VALUES (%(worker)s, %(state)s)
ON CONFLICT (worker) DO UPDATE SET state = EXCLUDED.state, at = now()
