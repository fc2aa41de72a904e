SELECT s.id, d.name AS device, s.metric, s.unit, s.low, s.high, s.interval_s, s.registered, s.first_seen_at
FROM series s
JOIN device d ON d.id = s.device_id
WHERE s.id = %(id)s::bigint
