-- The newest transitions of an alert, oldest of them first.
SELECT * FROM (
    SELECT t.id, t.alert_id, t.kind, t.level, t.at, t.recorded_at, t.actor, t.comment, t.value, t.limit_value, t.evidence,
           t.text_zh, t.text_en
    FROM alert_transition t
    WHERE t.alert_id = %(id)s
    ORDER BY t.id DESC
    LIMIT 1000
) newest
ORDER BY id
