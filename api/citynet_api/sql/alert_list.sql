-- One page of alerts, newest raise first. Each filter is off when its parameter is null.
SELECT a.id, a.rule_id, a.rule_version, a.domain, a.object, a.series_id, s.metric,
       -- a stale rule compares ages, whatever the unit of its metric
       CASE r.body ->> 'kind' WHEN 'stale' THEN 's' ELSE coalesce(r.body ->> 'unit', s.unit) END AS unit,
       r.body ->> 'kind' AS rule_kind,
       a.verdict, a.audience, a.verdict_at, a.verdict_zh, a.verdict_en,
       a.mode, a.level, a.level_max, a.raised_at, a.changed_at, a.cleared_at, a.value, a.limit_value,
       a.title_zh, a.title_en, a.text_zh, a.text_en, a.recorded_at, a.known_at, a.acked_at, a.acked_by, a.ack_comment,
       r.body ->> 'standard' AS standard, r.body ->> 'edition' AS edition, r.body ->> 'clause' AS clause,
       r.body ->> 'status' AS standard_status,
       d.kind, d.district, d.lon, d.lat
FROM alert a
JOIN series s ON s.id = a.series_id
JOIN device d ON d.id = s.device_id
LEFT JOIN rule r ON r.id = a.rule_id AND r.version = a.rule_version
WHERE (a.raised_at, a.id) < (%(raised_at)s::timestamptz, %(id)s::text)
  AND (%(mode)s::text = 'all' OR a.mode = %(mode)s::text)
  AND (%(audience)s::text = 'all' OR a.audience = %(audience)s::text)
  AND (%(state)s::text <> 'open' OR a.cleared_at IS NULL)
  AND (%(state)s::text <> 'cleared' OR a.cleared_at IS NOT NULL)
  AND (%(unacked)s::boolean IS NULL OR (a.acked_at IS NULL) = %(unacked)s::boolean)
  AND (%(level_min)s::integer IS NULL OR a.level >= %(level_min)s::integer)
  AND (%(domain)s::text IS NULL OR a.domain = %(domain)s::text)
  AND (%(rule)s::text IS NULL OR a.rule_id = %(rule)s::text)
  AND (%(object)s::text IS NULL OR a.object = %(object)s::text)
  AND (%(district)s::text IS NULL OR d.district = %(district)s::text)
  AND (%(from)s::timestamptz IS NULL OR a.raised_at >= %(from)s::timestamptz)
  AND (%(to)s::timestamptz IS NULL OR a.raised_at < %(to)s::timestamptz)
ORDER BY a.raised_at DESC, a.id DESC
LIMIT %(limit)s::integer
