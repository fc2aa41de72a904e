-- Part of the readings in the order of their times, as they would have come one by one.
CREATE TABLE bench_rows AS
    SELECT time, series_id, value, quality FROM (SELECT * FROM reading LIMIT 200000) AS part ORDER BY time;
CREATE INDEX ON bench_rows (series_id, time DESC)
