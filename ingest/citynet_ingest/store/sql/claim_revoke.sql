-- Whoever held one of these lanes has lost them all: it must start afresh.
UPDATE ingest_claim SET revoked = true WHERE id IN (SELECT claim FROM ingest_lane WHERE lane = ANY(%(lanes)s::integer[]))
