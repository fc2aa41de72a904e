INSERT INTO api_token (name, role, digest, expires_at)
VALUES (%(name)s, %(role)s, %(digest)s, now() + make_interval(days => %(expires_days)s::integer))
ON CONFLICT (name) DO NOTHING
RETURNING name, role, created_at, expires_at
