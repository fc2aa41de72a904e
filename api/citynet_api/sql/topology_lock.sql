-- One registration of topology at a time, until the end of its transaction: two that name the same things would wait for each other.
SELECT pg_advisory_xact_lock(1953460079)
