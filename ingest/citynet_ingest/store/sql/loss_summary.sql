SELECT gateway, reason, count(*) AS losses, sum(count)::bigint AS records, min(at) AS first_at, max(at) AS last_at
FROM loss
WHERE (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
GROUP BY gateway, reason
ORDER BY records DESC, gateway, reason
