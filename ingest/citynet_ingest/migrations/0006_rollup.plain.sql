-- Rollups: mergeable partials of a series in a bucket of one minute or one hour. Several partials of one bucket are normal
-- (late readings bring their own); whoever reads combines them. No unique key, as with readings. Partitioned by month and
-- by year, made ahead of need by ingest.
--
-- n counts all readings, usable those with a finite value that are not of bad quality; the other columns are over the usable
-- ones. Without any, sum is 0, and min, max, first, last are NaN. Combining: first is the one with the least (first_at, first),
-- last the one with the greatest (last_at, last), both among partials with usable > 0.
--
-- Complete are the buckets before the one of the series' newest reading. That one is to be taken from the readings, all of it:
-- its partial may be missing, or hold late readings only.

CREATE TABLE rollup_minute (
    time      timestamptz NOT NULL,         -- start of the bucket
    series_id integer NOT NULL,
    n         integer NOT NULL,
    usable    integer NOT NULL,
    sum       double precision NOT NULL,
    min       double precision NOT NULL,
    max       double precision NOT NULL,
    first     double precision NOT NULL,
    last      double precision NOT NULL,
    first_at  timestamptz NOT NULL,         -- of the first usable reading
    last_at   timestamptz NOT NULL
) PARTITION BY RANGE (time);
CREATE INDEX rollup_minute_series_time ON rollup_minute (series_id, time DESC);

CREATE TABLE rollup_hour (LIKE rollup_minute) PARTITION BY RANGE (time);
CREATE INDEX rollup_hour_series_time ON rollup_hour (series_id, time DESC);

-- Make the partitions of both tables that hold these days, if absent; attached as those of reading are.
CREATE FUNCTION ensure_rollup_partitions(days date[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    span text;
    start date;
    name text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('citynet.rollup.partitions'));
    FOREACH parent IN ARRAY ARRAY['rollup_minute', 'rollup_hour'] LOOP
        span := CASE parent WHEN 'rollup_minute' THEN 'month' ELSE 'year' END;
        FOR start IN SELECT DISTINCT date_trunc(span, day::timestamp)::date FROM unnest(days) AS day LOOP
            name := parent || '_' || to_char(start, CASE span WHEN 'month' THEN 'YYYYMM' ELSE 'YYYY' END);
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                           start::timestamp AT TIME ZONE 'UTC',
                           (start + ('1 ' || span)::interval)::timestamp AT TIME ZONE 'UTC');
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
