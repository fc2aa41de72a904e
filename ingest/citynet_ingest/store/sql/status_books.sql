-- The city in numbers, from the books: no scan of readings.
SELECT (SELECT count(*) FROM gateway), (SELECT count(*) FROM gateway WHERE online),
       (SELECT count(*) FROM device), (SELECT count(*) FROM series), (SELECT count(*) FROM stream_cursor),
       (SELECT coalesce(sum(stored), 0) FROM stream_cursor) + (SELECT coalesce(sum(stored), 0) FROM direct_tally),
       (SELECT count(*) FROM dead_letter WHERE redriven_at IS NULL),
       (SELECT coalesce(sum(records * times), 0) FROM dead_letter WHERE redriven_at IS NULL),
       (SELECT count(*) FROM loss), (SELECT coalesce(sum(count), 0) FROM loss),
       (SELECT count(*) FROM alert WHERE cleared_at IS NULL AND mode = 'live')
