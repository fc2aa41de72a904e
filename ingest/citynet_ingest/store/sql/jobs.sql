-- TimescaleDB's own jobs on our tables: columnstore policies and, if somebody made one, retention.
SELECT hypertable_name, job_id,
       CASE WHEN proc_name = 'policy_retention' THEN 'retention' ELSE 'columnstore' END,
       (config->>CASE WHEN proc_name = 'policy_retention' THEN 'drop_after' ELSE 'compress_after' END)::interval
FROM timescaledb_information.jobs
WHERE hypertable_schema = current_schema() AND hypertable_name IN ('reading', 'rollup_minute', 'rollup_hour')
  AND proc_name IN ('policy_retention', 'policy_compression')
ORDER BY hypertable_name, job_id
