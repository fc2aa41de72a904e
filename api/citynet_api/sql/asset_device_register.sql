-- Which device stands at which asset, of a topology document.
INSERT INTO asset_device (device_id, asset_id)
SELECT d.id, a.id
FROM jsonb_to_recordset(%(assets)s::jsonb) AS e (asset text, devices jsonb)
CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(e.devices) WHEN 'array' THEN e.devices ELSE '[]' END)
    AS n (name)
JOIN asset a ON a.name = e.asset
JOIN device d ON d.name = n.name
ON CONFLICT (device_id) DO UPDATE SET asset_id = excluded.asset_id
