-- How far letters have come: waiting, or what became of them.
SELECT d.id, q.letter_id IS NOT NULL AND d.redriven_at IS NULL, d.redriven_at IS NOT NULL, coalesce(d.redriven_stored, 0),
       d.redrive_error
FROM dead_letter d
LEFT JOIN dead_letter_redrive q ON q.letter_id = d.id
WHERE d.id = ANY(%(letters)s::bigint[])
ORDER BY d.id
