SELECT date_bin(make_interval(secs => %(bucket_s)s), time, to_timestamp(%(from_s)s)) AS at,
       count(*), min(value), max(value), avg(value)
FROM reading
WHERE series_id = 1 AND time >= to_timestamp(%(from_s)s) AND time < to_timestamp(%(to_s)s)
GROUP BY 1
ORDER BY 1
