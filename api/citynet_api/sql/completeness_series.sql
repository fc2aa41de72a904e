-- One page of the series of an area, by id, with what is known of their sampling. Filters as in latest_list.
SELECT s.id, d.name AS device, d.district, s.metric, s.interval_s, s.first_seen_at
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
