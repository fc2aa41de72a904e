-- Readings in intervals aligned to a Monday 00:00 UTC. NaN and infinity count but take no part in the figures.
SELECT date_bin(make_interval(secs => %(bucket_s)s::integer), r.time, timestamptz '2001-01-01 00:00+00') AS at,
       count(*) AS count,
       count(*) FILTER (WHERE r.quality & 3 >= 2) AS bad,
       min(r.value) FILTER (WHERE f.finite) AS min,
       max(r.value) FILTER (WHERE f.finite) AS max,
       avg(r.value) FILTER (WHERE f.finite) AS avg,
       (array_agg(r.value ORDER BY r.time) FILTER (WHERE f.finite))[1] AS first,
       (array_agg(r.value ORDER BY r.time DESC) FILTER (WHERE f.finite))[1] AS last
FROM reading r
CROSS JOIN LATERAL (SELECT r.value > '-infinity' AND r.value < 'infinity' AS finite) f
WHERE r.series_id = %(id)s::integer
  AND r.time >= %(from)s::timestamptz
  AND r.time < %(to)s::timestamptz
GROUP BY 1
ORDER BY 1
