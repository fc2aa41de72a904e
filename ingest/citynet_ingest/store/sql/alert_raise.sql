INSERT INTO alert (id, rule_id, rule_version, domain, object, series_id, level, level_max, raised_at, changed_at, value,
                   limit_value, title_zh, title_en, text_zh, text_en)
VALUES (%(alert_id)s, %(rule)s, %(version)s, %(domain)s, %(object)s, %(series)s, %(level)s, %(level)s, %(at)s, %(at)s,
        %(value)s, %(limit)s, %(title_zh)s, %(title_en)s, %(text_zh)s, %(text_en)s)
