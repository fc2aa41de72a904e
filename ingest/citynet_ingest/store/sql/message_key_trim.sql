-- A bounded piece at a time; several workers may do it.
DELETE FROM message_key WHERE digest IN (
    SELECT digest FROM message_key WHERE at < now() - make_interval(secs => %(keep_s)s)
    LIMIT 50000 FOR UPDATE SKIP LOCKED
)
