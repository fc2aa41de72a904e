-- Shards that a worker holds now, by the locks of their lanes: shard, process of the server, who is connected there.
SELECT shard, l.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local')
FROM pg_locks l
CROSS JOIN generate_series(l.objid::integer * %(size)s, l.objid::integer * %(size)s + %(size)s - 1) AS shard
LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %(lock)s AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1
