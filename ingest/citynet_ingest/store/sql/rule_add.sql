INSERT INTO rule (id, version, body) VALUES (%(id)s, %(version)s, %(body)s)
ON CONFLICT (id, version) DO UPDATE SET body = EXCLUDED.body
