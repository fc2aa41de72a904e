INSERT INTO alert_transition (alert_id, kind, level, at, value, limit_value, evidence, text_zh, text_en)
VALUES (%(alert_id)s, %(kind)s, %(level)s, %(at)s, %(value)s, %(limit)s, %(evidence)s, %(text_zh)s, %(text_en)s)
ON CONFLICT (alert_id, kind, level, at) WHERE actor IS NULL DO NOTHING
