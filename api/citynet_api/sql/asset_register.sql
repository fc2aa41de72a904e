-- Assets of a topology document (%(assets)s is a JSON array). What the document leaves out stays as it was.
INSERT INTO asset AS a (name, kind, label, district, lon, lat)
SELECT asset, kind, label, district, lon, lat
FROM jsonb_to_recordset(%(assets)s::jsonb)
    AS e (asset text, kind text, label text, district text, lon double precision, lat double precision)
ON CONFLICT (name) DO UPDATE SET
    kind = excluded.kind,
    label = coalesce(excluded.label, a.label),
    district = coalesce(excluded.district, a.district),
    lon = coalesce(excluded.lon, a.lon),
    lat = coalesce(excluded.lat, a.lat)
