MERGE INTO device_uplink AS d
USING (
    SELECT * FROM unnest(
        %(device)s::text[], %(first)s::bigint[], %(counter)s::bigint[], %(received)s::bigint[],
        %(missing)s::bigint[], %(restarts)s::bigint[]
    ) AS u (device, first, counter, received, missing, restarts)
) AS u ON d.device = u.device
WHEN MATCHED THEN UPDATE SET
    counter = u.counter,
    received = d.received + u.received,
    missing = d.missing + u.missing + greatest(u.first - d.counter - 1, 0),
    restarts = d.restarts + u.restarts + (u.first <= d.counter)::int,
    last_at = now()
WHEN NOT MATCHED THEN INSERT (device, counter, received, missing, restarts)
    VALUES (u.device, u.counter, u.received, u.missing, u.restarts)
