-- TimescaleDB that can COPY straight into the columnstore: known by the setting.
SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'timescaledb')
   AND current_setting('timescaledb.enable_direct_compress_copy_client_sorted', true) IS NOT NULL
