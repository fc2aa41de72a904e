-- Settings of the server that the guarantee or the speed hang on.
SELECT name, current_setting(name) FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'max_wal_size', 'wal_compression', 'checkpoint_timeout',
               'shared_buffers', 'autovacuum', 'track_counts', 'max_connections', 'idle_in_transaction_session_timeout',
               'timescaledb.max_background_workers')
ORDER BY name
