-- What waits for hindsight, longest known first: settled, or known for so long that it never will be.
SELECT l.series_id, d.name, s.metric, d.source, l.from_us, l.to_us,
       (extract(epoch FROM l.known_at) * 1000000)::bigint, l.revision
FROM late_span l JOIN series s ON s.id = l.series_id JOIN device d ON d.id = s.device_id
WHERE l.changed_at <= now() - make_interval(secs => %(settle_s)s) OR l.known_at <= now() - make_interval(secs => %(patience_s)s)
ORDER BY l.known_at, l.series_id
LIMIT %(limit)s
