-- Keeps the commits that together hold at least `keep` hashes: more than can be in flight.
DELETE FROM direct_receipt WHERE worker = %(worker)s AND number <= (
    SELECT max(number) FROM (
        SELECT number, sum(length(hashes)) OVER (ORDER BY number DESC) - length(hashes) AS newer
        FROM direct_receipt WHERE worker = %(worker)s
    ) AS r WHERE newer >= %(keep)s * 16
)
