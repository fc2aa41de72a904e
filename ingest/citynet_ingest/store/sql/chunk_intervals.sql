SELECT hypertable_name, time_interval FROM timescaledb_information.dimensions
WHERE hypertable_schema = current_schema() AND hypertable_name IN ('reading', 'rollup_minute', 'rollup_hour')
