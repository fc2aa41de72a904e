SELECT s.id, d.name AS device, s.metric, s.unit, s.low, s.high, s.interval_s, s.registered, s.first_seen_at
FROM series s
JOIN device d ON d.id = s.device_id
WHERE s.id > %(after)s::bigint
  AND (%(device)s::text IS NULL OR d.name = %(device)s::text)
  AND (%(metric)s::text IS NULL OR s.metric = %(metric)s::text)
  AND (%(registered)s::boolean IS NULL OR s.registered = %(registered)s::boolean)
ORDER BY s.id
LIMIT %(limit)s::integer
