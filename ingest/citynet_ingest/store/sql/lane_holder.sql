-- Who holds the advisory lock of a lane in this database.
SELECT a.application_name, a.pid, coalesce(host(a.client_addr), 'a local socket'), date_trunc('second', a.backend_start)::text
FROM pg_locks k JOIN pg_stat_activity a ON a.pid = k.pid
WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 2
  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND k.classid = %(space)s::bigint::oid AND k.objid = %(lane)s::bigint::oid
