SELECT device, received, missing, restarts, counter, to_char(last_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM device_uplink ORDER BY missing DESC, device LIMIT %(limit)s
