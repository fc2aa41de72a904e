-- The owner of a live token of an api role: neither expired nor revoked, and not one that may only push.
SELECT name, role, expires_at
FROM api_token
WHERE digest = %(digest)s
  AND role <> 'source'
  AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > now())
