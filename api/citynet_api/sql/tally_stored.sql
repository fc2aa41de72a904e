-- How many readings are stored in all, from the books rather than by counting rows.
SELECT (SELECT coalesce(sum(stored), 0) FROM stream_cursor) + (SELECT coalesce(sum(stored), 0) FROM direct_tally) AS stored
