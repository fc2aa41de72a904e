SELECT ensure_rollup_partitions(ARRAY(
    SELECT day::date
    FROM (SELECT min(time) AS first, max(time) AS last FROM reading) AS span,
         generate_series(span.first - interval '1 day', span.last + interval '1 day', interval '1 day') AS day
))
