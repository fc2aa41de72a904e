INSERT INTO api_token (name, role, digest, expires_at, source)
VALUES (%(name)s, %(role)s, %(digest)s, now() + make_interval(days => %(expires_days)s::integer), %(source)s)
ON CONFLICT (name) DO NOTHING
RETURNING name, role, source, created_at, expires_at
