INSERT INTO alert_transition (alert_id, kind, level, at, comment, value, limit_value, evidence, text_zh, text_en, mode)
VALUES (%(alert_id)s, %(kind)s, %(level)s, %(at)s, %(comment)s, %(value)s, %(limit)s, %(evidence)s, %(text_zh)s, %(text_en)s, %(mode)s)
ON CONFLICT (alert_id, kind, level, at) WHERE actor IS NULL DO NOTHING
