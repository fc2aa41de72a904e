-- What is armed, since when, by whom, and how it scored last.
SELECT r.id, r.version, r.mode, r.armed_at, a.author, a.reason, a.override_by || ': ' || a.override_reason, r.why,
       s.at, s.precision, s.recall
FROM rule r
LEFT JOIN LATERAL (
    SELECT author, reason, override_by, override_reason FROM rule_arming
    WHERE rule_id = r.id AND digest = r.digest ORDER BY id DESC LIMIT 1
) AS a ON true
LEFT JOIN LATERAL (
    SELECT at, precision, recall FROM rule_score
    WHERE rule_id = r.id AND fingerprint = r.fingerprint ORDER BY id DESC LIMIT 1
) AS s ON true
WHERE r.armed_at IS NOT NULL
ORDER BY r.id, r.version
