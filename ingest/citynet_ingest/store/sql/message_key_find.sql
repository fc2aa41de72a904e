SELECT digest, body FROM message_key WHERE digest = ANY(%(digests)s)
