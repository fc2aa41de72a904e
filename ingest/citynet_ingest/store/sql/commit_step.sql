UPDATE ingest_claim SET number = %(number)s, at = now() WHERE id = %(claim)s AND number = %(number)s - 1 AND NOT revoked
