-- One page of readings, ascending. A series may hold several readings of one time, even equal ones, so a page continues at
-- the last row's (time, value, quality) and skips as many equal rows as were shown: exact, also across ties.
SELECT r.time AS at, r.value, r.quality
FROM reading r
WHERE r.series_id = %(id)s::integer
  AND r.time >= %(at)s::timestamptz
  AND r.time < %(to)s::timestamptz
  AND (%(value)s::double precision IS NULL
       OR (r.time, r.value, r.quality) >= (%(at)s::timestamptz, %(value)s::double precision, %(quality)s::smallint))
ORDER BY r.time, r.value, r.quality
LIMIT %(limit)s::integer OFFSET %(skip)s::integer
