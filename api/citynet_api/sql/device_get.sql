SELECT d.name, d.source AS gateway, d.kind, d.district, d.lon, d.lat, d.registered, d.first_seen_at,
       (SELECT count(*) FROM series s WHERE s.device_id = d.id) AS series_count,
       (SELECT count(*) FROM alert a WHERE a.object = d.name AND a.cleared_at IS NULL AND a.mode = 'live') AS open_alerts
FROM device d
WHERE d.name = %(name)s
