-- The city in one look; of alerts the live ones. Open alerts are few (one a rule and object at most), gateways too.
SELECT now() AS as_of_at,
       (SELECT coalesce(jsonb_object_agg(level, n), '{}') FROM
           (SELECT level, count(*) AS n FROM alert WHERE cleared_at IS NULL AND mode = 'live' GROUP BY level) x) AS by_level,
       (SELECT coalesce(jsonb_object_agg(domain, n), '{}') FROM
           (SELECT domain, count(*) AS n FROM alert WHERE cleared_at IS NULL AND mode = 'live' GROUP BY domain) x) AS by_domain,
       (SELECT count(*) FROM alert WHERE cleared_at IS NULL AND mode = 'live' AND acked_at IS NULL) AS unacked,
       (SELECT count(*) FROM gateway WHERE online) AS gateways_online,
       (SELECT count(*) FROM gateway) AS gateways_total,
       (SELECT max(last_batch_at) FROM gateway) AS last_batch_at,
       (SELECT coalesce(jsonb_agg(to_jsonb(x)), '[]') FROM
           (SELECT kind, object, min(first_at) AS first_at, max(last_at) AS last_at, sum(count) AS count,
                   (array_agg(detail ORDER BY last_at DESC))[1] AS detail
            FROM system_event WHERE last_at > now() - interval '24 hours'
            GROUP BY kind, object ORDER BY max(last_at) DESC LIMIT 20) x) AS system_events
