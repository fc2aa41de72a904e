-- The source of a live token that may push: neither expired nor revoked.
SELECT source FROM api_token
WHERE digest = %(digest)s AND role = 'source' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
