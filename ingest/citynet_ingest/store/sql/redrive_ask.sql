-- Asking twice, or two people asking, is asking once; the later content type counts.
INSERT INTO dead_letter_redrive AS q (letter_id, shard, asked_by, content_type)
SELECT w.letter, w.shard, %(by)s, %(content_type)s
FROM unnest(%(letters)s::bigint[], %(shards)s::smallint[]) AS w (letter, shard)
JOIN dead_letter d ON d.id = w.letter AND d.redriven_at IS NULL
ON CONFLICT (letter_id) DO UPDATE SET content_type = coalesce(EXCLUDED.content_type, q.content_type)
