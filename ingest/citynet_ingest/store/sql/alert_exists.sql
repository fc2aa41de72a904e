SELECT 1 FROM alert WHERE id = %(alert_id)s
