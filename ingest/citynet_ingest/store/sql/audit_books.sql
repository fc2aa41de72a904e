-- The books against the shelves: what the cursors and tallies say, and what is really there.
SELECT
    (SELECT coalesce(sum(stored), 0) FROM stream_cursor) + (SELECT coalesce(sum(stored), 0) FROM direct_tally),
    (SELECT coalesce(sum(dead_lettered), 0) FROM stream_cursor) + (SELECT coalesce(sum(dead_lettered), 0) FROM direct_tally),
    (SELECT coalesce(sum(records * times), 0) FROM dead_letter WHERE redriven_at IS NULL),
    (SELECT coalesce(sum(lost), 0) FROM stream_cursor),
    (SELECT coalesce(sum(count), 0) FROM loss),
    (SELECT coalesce(sum(noted), 0) FROM stream_cursor),
    (SELECT count(*) FROM gateway_note),
    (SELECT coalesce(sum(duplicates), 0) FROM direct_tally)
