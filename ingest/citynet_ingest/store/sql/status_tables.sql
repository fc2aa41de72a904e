-- Ordinary tables of ours. The three that are made of parts are told apart by the caller.
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
  AND c.relname <> ALL (%(parted)s::text[])
ORDER BY c.relname
