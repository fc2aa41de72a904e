INSERT INTO system_event AS e (kind, object, since, last_at, count, detail)
VALUES (%(kind)s, %(object)s, date_trunc('hour', now()), now(), %(count)s, %(detail)s)
ON CONFLICT (kind, object, since) DO UPDATE SET
    last_at = now(), count = e.count + EXCLUDED.count, detail = EXCLUDED.detail
