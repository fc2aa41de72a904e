-- Rules that came out of shadow: what they say now is shown, and told to those who listen.
WITH risen AS (
    UPDATE alert SET mode = 'live' WHERE cleared_at IS NULL AND mode = 'shadow' AND rule_id = ANY(%(live)s::text[])
    RETURNING id, level, value, limit_value, text_zh, text_en
)
INSERT INTO alert_transition (alert_id, kind, level, at, value, limit_value, text_zh, text_en, comment)
SELECT id, 'raise', level, now(), value, limit_value, text_zh, text_en, 'the rule is live now' FROM risen
