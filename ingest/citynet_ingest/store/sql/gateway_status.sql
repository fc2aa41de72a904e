INSERT INTO gateway (id, online, status, status_at)
VALUES (%(gateway)s, %(online)s, %(body)s::jsonb, to_timestamp(%(at_us)s / 1e6))
ON CONFLICT (id) DO UPDATE SET
    online = EXCLUDED.online,
    status_at = EXCLUDED.status_at,
    -- A will carries no claims; what the gateway said last stays on show.
    status = CASE WHEN EXCLUDED.online THEN EXCLUDED.status
                  ELSE coalesce(gateway.status, '{}') || jsonb_build_object('online', false) END
