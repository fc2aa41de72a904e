-- Chunks of our tables, oldest first.
SELECT c.hypertable_name, c.chunk_schema, c.chunk_name, c.range_start, c.range_end,
       coalesce(s.total_bytes, 0), c.is_compressed,
       approximate_row_count(format('%%I.%%I', c.chunk_schema, c.chunk_name)::regclass)
FROM timescaledb_information.chunks c
LEFT JOIN (
    SELECT 'reading' AS name, * FROM chunks_detailed_size('reading')
    UNION ALL SELECT 'rollup_minute', * FROM chunks_detailed_size('rollup_minute')
    UNION ALL SELECT 'rollup_hour', * FROM chunks_detailed_size('rollup_hour')
) AS s ON (s.name, s.chunk_schema, s.chunk_name) = (c.hypertable_name, c.chunk_schema, c.chunk_name)
WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN ('reading', 'rollup_minute', 'rollup_hour')
ORDER BY c.hypertable_name, c.range_start
