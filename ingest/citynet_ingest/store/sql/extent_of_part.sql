-- Newest and oldest reading of one chunk or partition, by the index: a scan of a day would take minutes.
SELECT min(l.time), max(h.time)
FROM series s
CROSS JOIN LATERAL (SELECT time FROM {part} WHERE series_id = s.id ORDER BY time LIMIT 1) AS l
CROSS JOIN LATERAL (SELECT time FROM {part} WHERE series_id = s.id ORDER BY time DESC LIMIT 1) AS h
