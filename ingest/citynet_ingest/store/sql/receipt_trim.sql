-- Keeps, of each of these lanes, the rows that together hold at least `keep` hashes: more than can be in flight.
DELETE FROM direct_receipt d USING (
    SELECT lane, max(id) AS id FROM (
        SELECT lane, id, sum(length(hashes)) OVER (PARTITION BY lane ORDER BY id DESC) - length(hashes) AS newer
        FROM direct_receipt WHERE lane = ANY(%(lanes)s::integer[])
    ) AS r WHERE newer >= %(keep)s * 16 GROUP BY lane
) AS old WHERE d.lane = old.lane AND d.id <= old.id
