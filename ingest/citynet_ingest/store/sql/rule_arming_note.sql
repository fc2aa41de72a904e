-- What a worker armed, where nobody had said so: one row until the rule or its mode changes.
INSERT INTO rule_arming (rule_id, version, digest, mode, author, reason)
SELECT %(rule)s, %(version)s, %(digest)s, %(mode)s, %(author)s, %(reason)s
WHERE NOT EXISTS (
    SELECT 1 FROM (
        SELECT digest, mode FROM rule_arming WHERE rule_id = %(rule)s ORDER BY id DESC LIMIT 1
    ) AS newest
    WHERE newest.digest = %(digest)s AND newest.mode = %(mode)s
)
