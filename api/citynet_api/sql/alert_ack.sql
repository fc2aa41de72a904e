-- The acknowledgement, its transition and the call to the listeners: one statement, so none of them without the others.
WITH acked AS (
    UPDATE alert SET acked_at = now(), acked_by = %(actor)s, ack_comment = %(comment)s
    WHERE id = %(id)s AND acked_by IS NULL
    RETURNING id, level, value, limit_value, acked_at, mode
), noted AS (
    INSERT INTO alert_transition (alert_id, kind, level, at, actor, comment, value, limit_value, mode)
    SELECT id, 'ack', level, acked_at, %(actor)s, %(comment)s, value, limit_value, mode FROM acked
    RETURNING id
)
SELECT noted.id, pg_notify('citynet_alert', noted.id::text) FROM noted
