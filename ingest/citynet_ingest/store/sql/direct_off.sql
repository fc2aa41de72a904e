SELECT set_config('timescaledb.enable_direct_compress_copy', 'off', true),
       set_config('timescaledb.enable_direct_compress_copy_client_sorted', 'off', true)
