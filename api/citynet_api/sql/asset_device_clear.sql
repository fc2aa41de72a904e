-- Devices that a topology document no longer has at an asset whose devices it names.
DELETE FROM asset_device p
USING jsonb_to_recordset(%(assets)s::jsonb) AS e (asset text, devices jsonb), asset a, device d
WHERE jsonb_typeof(e.devices) = 'array' AND a.name = e.asset AND p.asset_id = a.id AND d.id = p.device_id
  AND NOT e.devices ? d.name
