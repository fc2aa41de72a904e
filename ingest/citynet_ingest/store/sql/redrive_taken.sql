DELETE FROM dead_letter_redrive q USING dead_letter d
WHERE d.id = q.letter_id AND q.shard = ANY(%(shards)s) AND (q.letter_id = ANY(%(letters)s) OR d.redriven_at IS NOT NULL)
