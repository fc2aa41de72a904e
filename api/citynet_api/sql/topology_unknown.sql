-- What a topology document names and nobody knows; runs after asset_register, so its own assets are known. At most 50.
WITH device_named AS (
    SELECT e.asset, d.name
    FROM jsonb_to_recordset(%(assets)s::jsonb) AS e (asset text, devices jsonb)
    CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(e.devices) WHEN 'array' THEN e.devices ELSE '[]' END)
        AS d (name)
), end_named AS (
    SELECT e.network, e.edge, side, asset
    FROM jsonb_to_recordset(%(edges)s::jsonb) AS e (network text, edge text, "from" text, "to" text)
    CROSS JOIN LATERAL (VALUES ('from', e."from"), ('to', e."to")) AS s (side, asset)
)
SELECT 'assets.devices' AS place, format('%%L at %%s is no known device; register it first', n.name, n.asset) AS detail
FROM device_named n WHERE NOT EXISTS (SELECT FROM device d WHERE d.name = n.name)
UNION ALL
SELECT format('networks.%%s', n.network), format('%%s.%%s: %%L is no known asset', n.edge, n.side, n.asset)
FROM end_named n WHERE NOT EXISTS (SELECT FROM asset a WHERE a.name = n.asset)
ORDER BY 1, 2
LIMIT 50
