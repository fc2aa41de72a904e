UPDATE ingest_commit SET number = %(number)s, at = now() WHERE worker = %(worker)s AND number = %(number)s - 1
