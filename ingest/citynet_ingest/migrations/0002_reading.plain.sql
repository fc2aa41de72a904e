-- Readings on plain PostgreSQL: one partition a day, made ahead of need by ingest. No unique key: exactly-once comes from
-- the cursors, and a unique index would cost more than everything else together.

CREATE TABLE reading (
    time      timestamptz NOT NULL,
    series_id integer NOT NULL,
    value     double precision NOT NULL,
    quality   smallint NOT NULL
) PARTITION BY RANGE (time);

CREATE INDEX reading_series_time ON reading (series_id, time DESC);

-- Make the partitions of these days, if absent. A partition is created empty and then attached, because attaching takes a
-- lock that does not stop readers and writers of the others.
CREATE FUNCTION ensure_reading_partitions(days date[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    day date;
    name text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('citynet.reading.partitions'));
    FOREACH day IN ARRAY days LOOP
        name := 'reading_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE reading INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
        EXECUTE format('ALTER TABLE reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                       day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
