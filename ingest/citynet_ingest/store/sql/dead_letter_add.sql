INSERT INTO dead_letter AS d
    (topic, source, stream, epoch, seq, records, reason, place, detail, content_type, payload, digest, received_us, scope,
     key, key_body)
VALUES (%(topic)s, %(source)s, %(stream)s, %(epoch)s, %(seq)s, %(records)s, %(reason)s, %(place)s, %(detail)s,
        %(content_type)s, %(payload)s, %(digest)s, %(received_us)s, %(scope)s,
        %(key)s, %(key_body)s)
ON CONFLICT (topic, digest) WHERE seq IS NULL AND redriven_at IS NULL DO UPDATE SET times = d.times + 1, last_at = now()
