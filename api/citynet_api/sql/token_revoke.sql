-- Revoking again keeps the time of the first revocation.
UPDATE api_token SET revoked_at = coalesce(revoked_at, now())
WHERE name = %(name)s
RETURNING name, role, revoked_at
