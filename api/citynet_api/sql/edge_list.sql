-- One page of edges in the order of their registration. Each filter is off when its parameter is null.
SELECT e.id, e.network, e.name, e.kind, f.name AS "from", t.name AS "to", e.length_m, e.line
FROM edge e JOIN asset f ON f.id = e.from_id JOIN asset t ON t.id = e.to_id
WHERE e.id > %(after)s::bigint
  AND (%(network)s::text IS NULL OR e.network = %(network)s::text)
  AND (%(from)s::text IS NULL OR f.name = %(from)s::text)
  AND (%(to)s::text IS NULL OR t.name = %(to)s::text)
ORDER BY e.id
LIMIT %(limit)s::integer
