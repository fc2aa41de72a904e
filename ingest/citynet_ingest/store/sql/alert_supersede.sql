-- An open alert of this rule and object that the engine no longer knows (its state was lost, or the rule was edited).
WITH old AS (
    UPDATE alert SET cleared_at = greatest(%(at)s, raised_at), changed_at = greatest(%(at)s, raised_at)
    WHERE rule_id = %(rule)s AND object = %(object)s AND cleared_at IS NULL
    RETURNING id, level, cleared_at
)
INSERT INTO alert_transition (alert_id, kind, level, at) SELECT id, 'supersede', level, cleared_at FROM old
