SELECT record_revision(%(alert_id)s, %(level)s, %(at)s, %(evidence)s, %(text_zh)s, %(text_en)s)
