-- Of these rules the ones that somebody answers for: the override of this very text.
SELECT digest, rule_id, override_by, override_reason FROM rule_arming
WHERE digest = ANY(%(digests)s::text[]) AND override_by IS NOT NULL ORDER BY id
