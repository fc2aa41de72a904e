-- One page of the series of an area, by id, each with its newest reading: the page is cut first, then one index descent a
-- series. Each filter is off when its parameter is null.
WITH page AS MATERIALIZED (
    SELECT s.id, d.name, d.kind, d.district, d.lon, d.lat, s.metric, s.unit
    FROM series s
    JOIN device d ON d.id = s.device_id
    WHERE s.id > %(after)s::bigint
      AND (%(district)s::text IS NULL OR d.district = %(district)s::text)
      AND (%(device)s::text IS NULL OR d.name = %(device)s::text)
      AND (%(metric)s::text IS NULL OR s.metric = %(metric)s::text)
      AND (%(west)s::double precision IS NULL
           OR (d.lon BETWEEN %(west)s::double precision AND %(east)s::double precision
               AND d.lat BETWEEN %(south)s::double precision AND %(north)s::double precision))
    ORDER BY s.id
    LIMIT %(limit)s::integer
)
SELECT p.id, p.name AS device, p.kind, p.district, p.lon, p.lat, p.metric, p.unit,
       newest.time AS at, newest.value, newest.quality,
       extract(epoch FROM now() - newest.time)::double precision AS age_s
FROM page p
LEFT JOIN LATERAL (
    SELECT r.time, r.value, r.quality FROM reading r WHERE r.series_id = p.id ORDER BY r.time DESC LIMIT 1
) newest ON true
ORDER BY p.id
