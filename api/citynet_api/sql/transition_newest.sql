-- Where the stream of transitions stands. Ids become visible in ascending order (writers hold a lock until they commit).
SELECT coalesce(max(id), 0) AS id FROM alert_transition
