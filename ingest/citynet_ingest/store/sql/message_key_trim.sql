-- A bounded piece at a time; several workers may do it. Keys of open dead letters stay.
DELETE FROM message_key WHERE digest IN (
    SELECT digest FROM message_key k WHERE at < now() - make_interval(secs => %(keep_s)s)
      AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.key = k.digest AND d.redriven_at IS NULL)
    LIMIT 50000 FOR UPDATE SKIP LOCKED
)
