-- A note beside an alert; not the one again that it has got last.
INSERT INTO alert_transition (alert_id, kind, level, at, evidence, text_zh, text_en, mode)
SELECT a.id, 'revise', %(level)s, %(at)s, %(evidence)s, %(text_zh)s, %(text_en)s, a.mode FROM alert a
WHERE a.id = %(alert_id)s AND NOT EXISTS (
    SELECT 1 FROM (
        SELECT evidence FROM alert_transition WHERE alert_id = a.id AND kind = 'revise' ORDER BY id DESC LIMIT 1
    ) AS newest
    WHERE newest.evidence -> 'revised' = %(evidence)s::jsonb -> 'revised'
)
ON CONFLICT (alert_id, kind, level, at) WHERE actor IS NULL DO NOTHING
