-- An alert that was missed, over already. No row if it is there: it was found before a crash, or live.
INSERT INTO alert (id, rule_id, rule_version, domain, object, series_id, level, level_max, raised_at, changed_at, cleared_at,
                   value, limit_value, title_zh, title_en, text_zh, text_en, mode, known_at)
VALUES (%(alert_id)s, %(rule)s, %(version)s, %(domain)s, %(object)s, %(series)s, %(level)s, %(level_max)s, %(raised_at)s,
        %(cleared_at)s, %(cleared_at)s, %(value)s, %(limit)s, %(title_zh)s, %(title_en)s, %(text_zh)s, %(text_en)s, %(mode)s,
        %(known_at)s)
ON CONFLICT DO NOTHING
