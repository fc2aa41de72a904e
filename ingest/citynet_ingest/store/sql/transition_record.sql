SELECT record_transition(
    %(alert_id)s, %(rule)s, %(version)s, %(domain)s, %(object)s, %(series)s, %(kind)s, %(level)s, %(at)s, %(value)s, %(limit)s,
    %(evidence)s, %(title_zh)s, %(title_en)s, %(text_zh)s, %(text_en)s, %(mode)s
)
