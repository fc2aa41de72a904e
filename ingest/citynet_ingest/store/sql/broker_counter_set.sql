INSERT INTO broker_counter (name, value) VALUES ('messages-dropped', %(value)s)
ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, at = now()
