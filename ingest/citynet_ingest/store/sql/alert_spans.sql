-- Alerts that were in force at some moment of a span, of some rules (null: of all), with their highest level.
SELECT rule_id, rule_version, object, level_max, (extract(epoch FROM raised_at) * 1000000)::bigint,
       (extract(epoch FROM cleared_at) * 1000000)::bigint, verdict, people
FROM alert
WHERE raised_at < %(to_at)s AND (cleared_at IS NULL OR cleared_at >= %(from_at)s)
  AND (%(rules)s::text[] IS NULL OR rule_id = ANY(%(rules)s::text[]))
  AND known_at IS NULL  -- a replay passes late readings over as well
ORDER BY raised_at, id
