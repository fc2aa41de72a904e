-- Rules that went into shadow: nobody is to act on what they said.
WITH old AS (
    UPDATE alert SET cleared_at = greatest(now(), raised_at), changed_at = greatest(now(), raised_at)
    WHERE cleared_at IS NULL AND mode = 'live' AND rule_id = ANY(%(shadow)s::text[])
    RETURNING id, level, cleared_at
)
INSERT INTO alert_transition (alert_id, kind, level, at, comment)
SELECT id, 'supersede', level, cleared_at, 'the rule is in shadow now' FROM old
