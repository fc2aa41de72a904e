INSERT INTO rule_score (rule_id, version, fingerprint, author, truth, from_at, to_at, precision, recall, body)
VALUES (%(rule)s, %(version)s, %(fingerprint)s, %(author)s, %(truth)s, %(from_at)s, %(to_at)s, %(precision)s, %(recall)s, %(body)s)
