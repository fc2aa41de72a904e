-- Alerts of these rules and a device that were in force within a span, with their ids.
SELECT id, rule_id, rule_version, object, level_max, (extract(epoch FROM raised_at) * 1000000)::bigint,
       (extract(epoch FROM cleared_at) * 1000000)::bigint
FROM alert
WHERE rule_id = ANY(%(rules)s::text[]) AND object = %(object)s
  AND raised_at <= %(to_at)s AND (cleared_at IS NULL OR cleared_at >= %(from_at)s)
ORDER BY raised_at, id
