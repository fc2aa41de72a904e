-- Rules as they were armed, alerts, and every transition with its evidence.

CREATE TABLE rule (
    id             text NOT NULL,
    version        text NOT NULL,
    body           jsonb NOT NULL,
    first_armed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, version)
);

CREATE TABLE alert (
    id           text PRIMARY KEY,          -- computed from rule, object and raise time
    rule_id      text NOT NULL,
    rule_version text NOT NULL,
    domain       text NOT NULL,
    object       text NOT NULL,             -- device
    series_id    integer NOT NULL REFERENCES series,
    level        smallint NOT NULL CHECK (level BETWEEN 1 AND 4),       -- 1 blue, 2 yellow, 3 orange, 4 red: in force, or last
    level_max    smallint NOT NULL CHECK (level_max BETWEEN level AND 4),
    raised_at    timestamptz NOT NULL,      -- event time
    changed_at   timestamptz NOT NULL,      -- event time of the last transition
    cleared_at   timestamptz,
    value        double precision,
    limit_value  double precision,
    title_zh     text NOT NULL,
    title_en     text NOT NULL,
    text_zh      text NOT NULL,
    text_en      text NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    acked_at     timestamptz,
    acked_by     text,
    ack_comment  text
);
-- At most one open alert per rule and object: the database is the last to enforce it.
CREATE UNIQUE INDEX alert_open ON alert (rule_id, object) WHERE cleared_at IS NULL;
CREATE INDEX alert_raised ON alert (raised_at DESC, id DESC);
CREATE INDEX alert_object ON alert (object, raised_at DESC);

CREATE TABLE alert_transition (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,       -- ascending in order of commit (writers take a lock)
    alert_id    text NOT NULL REFERENCES alert,
    kind        text NOT NULL CHECK (kind IN ('raise', 'escalate', 'deescalate', 'clear', 'supersede', 'ack')),
    level       smallint NOT NULL,
    at          timestamptz NOT NULL,       -- event time; for acknowledgements the time of the act
    recorded_at timestamptz NOT NULL DEFAULT now(),
    actor       text,                       -- who acted; null for the engine
    comment     text,
    value       double precision,
    limit_value double precision,
    evidence    jsonb NOT NULL DEFAULT '{}',
    text_zh     text NOT NULL DEFAULT '',
    text_en     text NOT NULL DEFAULT ''
);
CREATE INDEX alert_transition_alert ON alert_transition (alert_id, id);
-- The engine may find the same transition again after a crash; it is the same row.
CREATE UNIQUE INDEX alert_transition_once ON alert_transition (alert_id, kind, level, at) WHERE actor IS NULL;

-- Called before any transition is written: serialises writers to the end of their transaction, so that ids become visible
-- in ascending order and a stream that resumes "after id N" misses nothing.
CREATE FUNCTION lock_transitions() RETURNS void LANGUAGE sql AS
    $$ SELECT pg_advisory_xact_lock(hashtext('citynet.alert_transition')) $$;
