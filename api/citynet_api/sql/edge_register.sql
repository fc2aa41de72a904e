-- Edges of a topology document (%(edges)s is a JSON array), as the document says them.
INSERT INTO edge (network, name, kind, from_id, to_id, length_m, line)
SELECT e.network, e.edge, e.kind, f.id, t.id, e.length_m, nullif(e.line, 'null'::jsonb)
FROM jsonb_to_recordset(%(edges)s::jsonb)
    AS e (network text, edge text, kind text, "from" text, "to" text, length_m double precision, line jsonb)
JOIN asset f ON f.name = e."from"
JOIN asset t ON t.name = e."to"
ON CONFLICT (network, name) DO UPDATE SET
    kind = excluded.kind, from_id = excluded.from_id, to_id = excluded.to_id,
    length_m = excluded.length_m, line = excluded.line
