-- Devices of a registration document (%(devices)s is a JSON array). What the document leaves out stays as it was. Ordered
-- by name, as ingest does it, so that two writers take their row locks in the same order.
WITH entry AS (
    SELECT device, gateway, kind, district, lon, lat
    FROM jsonb_to_recordset(%(devices)s::jsonb)
        AS e (device text, gateway text, kind text, district text, lon double precision, lat double precision)
    ORDER BY device
), written AS (
    INSERT INTO device AS d (name, source, kind, district, lon, lat, registered)
    SELECT device, coalesce(gateway, device), kind, district, lon, lat, true FROM entry ORDER BY device
    ON CONFLICT (name) DO UPDATE SET
        source = coalesce((SELECT gateway FROM entry WHERE entry.device = excluded.name), d.source),
        kind = coalesce(excluded.kind, d.kind),
        district = coalesce(excluded.district, d.district),
        lon = coalesce(excluded.lon, d.lon),
        lat = coalesce(excluded.lat, d.lat),
        registered = true
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) AS devices, count(*) FILTER (WHERE is_new) AS devices_new FROM written
