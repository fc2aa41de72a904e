-- One page of assets by name, each with its devices. Each filter is off when its parameter is null.
SELECT a.name, a.kind, a.label, a.district, a.lon, a.lat,
       ARRAY(SELECT d.name FROM asset_device p JOIN device d ON d.id = p.device_id WHERE p.asset_id = a.id ORDER BY d.name) AS devices
FROM asset a
WHERE a.name > %(after)s::text
  AND (%(kind)s::text IS NULL OR a.kind = %(kind)s::text)
  AND (%(district)s::text IS NULL OR a.district = %(district)s::text)
  AND (%(device)s::text IS NULL OR a.id IN (
      SELECT p.asset_id FROM asset_device p JOIN device d ON d.id = p.device_id WHERE d.name = %(device)s::text))
ORDER BY a.name
LIMIT %(limit)s::integer
