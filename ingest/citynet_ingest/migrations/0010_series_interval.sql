-- How often a series is meant to be sampled, where a person knows it. Null: the api estimates it from the readings.

ALTER TABLE series ADD COLUMN interval_s double precision CHECK (interval_s > 0 AND interval_s < 'infinity');
