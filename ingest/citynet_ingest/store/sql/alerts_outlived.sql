-- Alerts of a rule that was edited since, and that did not say so again within its on-delay and a quarter of an hour: as it is now,
-- it would not have raised them, and nothing would ever clear them.
WITH old AS (
    UPDATE alert a SET cleared_at = greatest(now(), a.raised_at), changed_at = greatest(now(), a.raised_at)
    FROM rule r
    WHERE a.cleared_at IS NULL AND r.id = a.rule_id AND a.recorded_at < r.armed_at
      AND now() > r.armed_at + make_interval(secs => 900 + coalesce((r.body ->> 'on_delay_s')::float8, 0))
    RETURNING a.id, a.level, a.cleared_at, a.mode
)
INSERT INTO alert_transition (alert_id, kind, level, at, comment, mode)
SELECT id, 'supersede', level, cleared_at, 'the rule was edited and does not say so any more', mode FROM old
