SELECT number, revoked FROM ingest_claim WHERE id = %(claim)s
