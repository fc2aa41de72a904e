-- The last score that was kept for each of these fingerprints.
SELECT DISTINCT ON (fingerprint) fingerprint, at, precision, recall FROM rule_score
WHERE fingerprint = ANY(%(fingerprints)s::text[])
ORDER BY fingerprint, id DESC
