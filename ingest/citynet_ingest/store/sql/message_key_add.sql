-- No ON CONFLICT: a key that another worker stored meanwhile refuses the commit, and is found at the second try.
INSERT INTO message_key (digest, body) SELECT * FROM unnest(%(digests)s::bytea[], %(bodies)s::bytea[])
