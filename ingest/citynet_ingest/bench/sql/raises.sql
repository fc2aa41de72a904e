SELECT t.id, a.object, (extract(epoch FROM t.at) * 1000000)::bigint
FROM alert_transition t
JOIN alert a ON a.id = t.alert_id
WHERE t.id > %(after)s AND t.kind = 'raise' AND a.rule_id = 'bench-level'
ORDER BY t.id
