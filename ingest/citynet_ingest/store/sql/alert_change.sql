UPDATE alert SET
    level = CASE WHEN %(kind)s = 'clear' THEN level ELSE %(level)s END,
    level_max = greatest(level_max, %(level)s),
    changed_at = %(at)s,
    cleared_at = CASE WHEN %(kind)s = 'clear' THEN %(at)s ELSE cleared_at END,
    value = %(value)s,
    limit_value = coalesce(%(limit)s, limit_value),
    text_zh = %(text_zh)s,
    text_en = %(text_en)s
WHERE id = %(alert_id)s
