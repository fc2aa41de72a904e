-- Partitions of our tables, oldest first. The bounds are text in the catalogue.
SELECT p.relname, n.nspname, c.relname, b.bounds[1]::timestamptz, b.bounds[2]::timestamptz,
       pg_total_relation_size(c.oid), false, greatest(c.reltuples, 0)::bigint
FROM pg_inherits i
JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), $$^FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)$$) AS bounds
) AS b
WHERE i.inhparent = ANY (ARRAY[to_regclass('reading'), to_regclass('rollup_minute'), to_regclass('rollup_hour')]::oid[])
  AND b.bounds IS NOT NULL
ORDER BY p.relname, 4
