-- The owner of a live token: neither expired nor revoked.
SELECT name, role, expires_at
FROM api_token
WHERE digest = %(digest)s
  AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > now())
