INSERT INTO dead_letter AS d
    (topic, source, stream, epoch, seq, records, reason, place, detail, content_type, payload, digest)
VALUES (%(topic)s, %(source)s, %(stream)s, %(epoch)s, %(seq)s, %(records)s, %(reason)s, %(place)s, %(detail)s,
        %(content_type)s, %(payload)s, %(digest)s)
ON CONFLICT (topic, digest) WHERE seq IS NULL DO UPDATE SET times = d.times + 1, last_at = now()
