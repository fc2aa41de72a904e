-- Who held these lanes last, and what was known then.
SELECT c.lanes, array_agg(l.lane), s.state
FROM ingest_lane l JOIN ingest_claim c ON c.id = l.claim LEFT JOIN engine_snapshot s ON s.claim = c.id
WHERE l.lane = ANY(%(lanes)s::integer[])
GROUP BY c.id, s.claim
ORDER BY c.id DESC
