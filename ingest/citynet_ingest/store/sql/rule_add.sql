-- A rule as it is armed now. It is armed since it decides as it does now; rows from before migration 12 had not changed.
INSERT INTO rule AS r (id, version, body, mode, digest, fingerprint, why, armed_at)
VALUES (%(id)s, %(version)s, %(body)s, %(mode)s, %(digest)s, %(fingerprint)s, %(why)s, now())
ON CONFLICT (id, version) DO UPDATE SET
    body = EXCLUDED.body, mode = EXCLUDED.mode, digest = EXCLUDED.digest, fingerprint = EXCLUDED.fingerprint, why = EXCLUDED.why,
    armed_at = CASE
        WHEN r.fingerprint IS NULL THEN r.first_armed_at
        WHEN r.armed_at IS NOT NULL AND r.fingerprint = EXCLUDED.fingerprint THEN r.armed_at
        ELSE now()
    END
