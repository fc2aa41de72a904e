-- The series of a device, each with its newest reading (one index descent a series); at most 500.
SELECT s.id, d.name AS device, s.metric, s.unit, s.low, s.high, s.interval_s, s.registered, s.first_seen_at,
       newest.time AS at, newest.value, newest.quality
FROM device d
JOIN series s ON s.device_id = d.id
LEFT JOIN LATERAL (
    SELECT r.time, r.value, r.quality FROM reading r WHERE r.series_id = s.id ORDER BY r.time DESC LIMIT 1
) newest ON true
WHERE d.name = %(name)s
ORDER BY s.metric
LIMIT 500
