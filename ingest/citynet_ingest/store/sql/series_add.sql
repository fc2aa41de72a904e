INSERT INTO series (device_id, metric)
SELECT DISTINCT d.id, w.metric
FROM unnest(%(devices)s::text[], %(metrics)s::text[]) AS w (device, metric)
JOIN device d ON d.name = w.device
WHERE NOT EXISTS (SELECT 1 FROM series s WHERE s.device_id = d.id AND s.metric = w.metric)
ORDER BY 1, 2
ON CONFLICT (device_id, metric) DO NOTHING
