-- Nothing is left to be had from a claim without lanes.
DELETE FROM ingest_claim c WHERE c.revoked AND NOT EXISTS (SELECT FROM ingest_lane l WHERE l.claim = c.id)
