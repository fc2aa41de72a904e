-- Rollups on TimescaleDB: mergeable partials of a series in a bucket of one minute or one hour; see the plain variant for
-- what the columns mean. Several partials of one bucket are normal; whoever reads combines them.

CREATE TABLE rollup_minute (
    time      timestamptz NOT NULL,
    series_id integer NOT NULL,
    n         integer NOT NULL,
    usable    integer NOT NULL,
    sum       double precision NOT NULL,
    min       double precision NOT NULL,
    max       double precision NOT NULL,
    first     double precision NOT NULL,
    last      double precision NOT NULL,
    first_at  timestamptz NOT NULL,
    last_at   timestamptz NOT NULL
) WITH (
    tsdb.hypertable,
    tsdb.partition_column = 'time',
    tsdb.chunk_interval = '7 days',
    tsdb.segmentby = 'series_id',
    tsdb.orderby = 'time',
    tsdb.create_default_indexes = false
);
CREATE INDEX rollup_minute_series_time ON rollup_minute (series_id, time DESC);

CREATE TABLE rollup_hour (
    time      timestamptz NOT NULL,
    series_id integer NOT NULL,
    n         integer NOT NULL,
    usable    integer NOT NULL,
    sum       double precision NOT NULL,
    min       double precision NOT NULL,
    max       double precision NOT NULL,
    first     double precision NOT NULL,
    last      double precision NOT NULL,
    first_at  timestamptz NOT NULL,
    last_at   timestamptz NOT NULL
) WITH (
    tsdb.hypertable,
    tsdb.partition_column = 'time',
    tsdb.chunk_interval = '90 days',
    tsdb.segmentby = 'series_id',
    tsdb.orderby = 'time',
    tsdb.create_default_indexes = false
);
CREATE INDEX rollup_hour_series_time ON rollup_hour (series_id, time DESC);

-- Chunks make themselves.
CREATE FUNCTION ensure_rollup_partitions(days date[]) RETURNS integer LANGUAGE sql AS $$ SELECT 0 $$;
