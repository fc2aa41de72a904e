SELECT j.hypertable_name, j.job_id, s.last_run_status
FROM timescaledb_information.jobs j JOIN timescaledb_information.job_stats s USING (job_id)
WHERE j.hypertable_schema = current_schema() AND s.last_run_status = 'Failed'
ORDER BY j.job_id
