-- Readings on TimescaleDB: a hypertable, compressed by series. No unique key: exactly-once comes from the cursors, and a
-- unique constraint would forbid the direct path into the columnstore.

CREATE TABLE reading (
    time      timestamptz NOT NULL,
    series_id integer NOT NULL,
    value     double precision NOT NULL,
    quality   smallint NOT NULL
) WITH (
    tsdb.hypertable,
    tsdb.partition_column = 'time',
    tsdb.chunk_interval = '1 day',
    tsdb.segmentby = 'series_id',
    tsdb.orderby = 'time',
    tsdb.create_default_indexes = false
);

CREATE INDEX reading_series_time ON reading (series_id, time DESC);

-- Chunks make themselves; the function exists so that ingest need not know which server it talks to.
CREATE FUNCTION ensure_reading_partitions(days date[]) RETURNS integer LANGUAGE sql AS $$ SELECT 0 $$;
