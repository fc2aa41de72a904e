-- Transitions behind an id, those of rules in shadow left out, each with its alert as it is now (which may be further on than the transition).
SELECT t.id AS t_id, t.kind AS t_kind, t.level AS t_level, t.at AS t_at, t.recorded_at AS t_recorded_at, t.actor AS t_actor,
       t.comment AS t_comment, t.value AS t_value, t.limit_value AS t_limit_value, t.evidence AS t_evidence,
       t.text_zh AS t_text_zh, t.text_en AS t_text_en,
       a.id, a.rule_id, a.rule_version, a.domain, a.object, a.series_id, s.metric,
       -- a stale rule compares ages, whatever the unit of its metric
       CASE r.body ->> 'kind' WHEN 'stale' THEN 's' ELSE coalesce(r.body ->> 'unit', s.unit) END AS unit,
       r.body ->> 'kind' AS rule_kind,
       a.verdict, a.audience, a.verdict_at, a.verdict_zh, a.verdict_en,
       a.mode, a.level, a.level_max, a.raised_at, a.changed_at, a.cleared_at, a.value, a.limit_value,
       a.title_zh, a.title_en, a.text_zh, a.text_en, a.recorded_at, a.known_at, a.acked_at, a.acked_by, a.ack_comment,
       r.body ->> 'standard' AS standard, r.body ->> 'edition' AS edition, r.body ->> 'clause' AS clause,
       r.body ->> 'status' AS standard_status,
       d.kind, d.district, d.lon, d.lat
FROM alert_transition t
JOIN alert a ON a.id = t.alert_id
JOIN series s ON s.id = a.series_id
JOIN device d ON d.id = s.device_id
LEFT JOIN rule r ON r.id = a.rule_id AND r.version = a.rule_version
WHERE t.id > %(after)s::bigint AND t.id <= %(upto)s::bigint AND t.mode = 'live'
ORDER BY t.id
LIMIT %(limit)s::integer
