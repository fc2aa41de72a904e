-- One page of devices by name. Each filter is off when its parameter is null; q is a part of the name, already escaped.
SELECT d.name, d.source AS gateway, d.kind, d.district, d.lon, d.lat, d.registered, d.first_seen_at,
       (SELECT count(*) FROM series s WHERE s.device_id = d.id) AS series_count,
       (SELECT count(*) FROM alert a WHERE a.object = d.name AND a.cleared_at IS NULL AND a.mode = 'live') AS open_alerts
FROM device d
WHERE d.name > %(after)s::text
  AND (%(kind)s::text IS NULL OR d.kind = %(kind)s::text)
  AND (%(district)s::text IS NULL OR d.district = %(district)s::text)
  AND (%(gateway)s::text IS NULL OR d.source = %(gateway)s::text)
  AND (%(registered)s::boolean IS NULL OR d.registered = %(registered)s::boolean)
  AND (%(q)s::text IS NULL OR d.name ILIKE %(q)s::text)
ORDER BY d.name
LIMIT %(limit)s::integer
