-- Of letters without sequence numbers the books are the tally's: the caller takes off what this returns.
UPDATE dead_letter d SET redriven_at = now(), redriven_by = w.asked_by, redriven_stored = w.stored, redrives = d.redrives + 1,
       redrive_error = NULL
FROM unnest(%(letters)s::bigint[], %(by)s::text[], %(stored)s::bigint[]) AS w (letter, asked_by, stored)
WHERE d.id = w.letter AND d.redriven_at IS NULL
RETURNING d.seq IS NULL, d.records * d.times, d.times
