SELECT record_verdict(%(alert_id)s, %(verdict)s, %(audience)s, %(since)s, %(verdict_zh)s, %(verdict_en)s)
