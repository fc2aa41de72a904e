SELECT s.id, d.name, s.metric, d.source
FROM unnest(%(devices)s::text[], %(metrics)s::text[]) AS w (device, metric)
JOIN device d ON d.name = w.device
JOIN series s ON s.device_id = d.id AND s.metric = w.metric
