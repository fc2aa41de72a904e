-- One alert with its rule's body and its device's place.
SELECT a.id, a.rule_id, a.rule_version, a.domain, a.object, a.series_id, s.metric,
       -- a stale rule compares ages, whatever the unit of its metric
       CASE r.body ->> 'kind' WHEN 'stale' THEN 's' ELSE coalesce(r.body ->> 'unit', s.unit) END AS unit,
       r.body ->> 'kind' AS rule_kind,
       a.verdict, a.audience, a.verdict_at, a.verdict_zh, a.verdict_en,
       a.mode, a.level, a.level_max, a.raised_at, a.changed_at, a.cleared_at, a.value, a.limit_value,
       a.title_zh, a.title_en, a.text_zh, a.text_en, a.recorded_at, a.known_at, a.acked_at, a.acked_by, a.ack_comment,
       r.body ->> 'standard' AS standard, r.body ->> 'edition' AS edition, r.body ->> 'clause' AS clause,
       r.body ->> 'status' AS standard_status,
       d.kind, d.district, d.lon, d.lat, d.source AS gateway, r.body AS rule
FROM alert a
JOIN series s ON s.id = a.series_id
JOIN device d ON d.id = s.device_id
LEFT JOIN rule r ON r.id = a.rule_id AND r.version = a.rule_version
WHERE a.id = %(id)s
