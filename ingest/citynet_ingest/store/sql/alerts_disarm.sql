-- Nothing would ever clear an alert whose rule is no longer armed.
WITH old AS (
    UPDATE alert SET cleared_at = greatest(now(), raised_at), changed_at = greatest(now(), raised_at)
    WHERE cleared_at IS NULL AND rule_id <> ALL(%(armed)s::text[])
    RETURNING id, level, cleared_at, mode
)
INSERT INTO alert_transition (alert_id, kind, level, at, comment, mode)
SELECT id, 'supersede', level, cleared_at, 'the rule is no longer armed', mode FROM old
