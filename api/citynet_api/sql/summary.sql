-- The city in one look. Open alerts are few (one a rule and object at most), gateways too.
SELECT now() AS as_of_at,
       (SELECT coalesce(jsonb_object_agg(level, n), '{}') FROM
           (SELECT level, count(*) AS n FROM alert WHERE cleared_at IS NULL GROUP BY level) x) AS by_level,
       (SELECT coalesce(jsonb_object_agg(domain, n), '{}') FROM
           (SELECT domain, count(*) AS n FROM alert WHERE cleared_at IS NULL GROUP BY domain) x) AS by_domain,
       (SELECT count(*) FROM alert WHERE cleared_at IS NULL AND acked_at IS NULL) AS unacked,
       (SELECT count(*) FROM gateway WHERE online) AS gateways_online,
       (SELECT count(*) FROM gateway) AS gateways_total,
       (SELECT max(last_batch_at) FROM gateway) AS last_batch_at
