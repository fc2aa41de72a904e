UPDATE dead_letter d SET redrives = d.redrives + 1, redrive_error = w.failure
FROM unnest(%(letters)s::bigint[], %(failures)s::text[]) AS w (letter, failure)
WHERE d.id = w.letter
