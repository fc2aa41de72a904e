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
-- What the console always shows: open alerts, and those that cleared before anybody acknowledged them.
CREATE INDEX alert_open_raised ON alert (raised_at DESC, id DESC) WHERE cleared_at IS NULL;
CREATE INDEX alert_unacked_raised ON alert (raised_at DESC, id DESC) WHERE acked_at IS NULL;
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

-- One transition of the engine. Idempotent: what was found before a crash is found again after it.
CREATE FUNCTION record_transition(
    p_alert text, p_rule text, p_version text, p_domain text, p_object text, p_series integer, p_kind text, p_level integer,
    p_at timestamptz, p_value double precision, p_limit double precision, p_evidence jsonb,
    p_title_zh text, p_title_en text, p_text_zh text, p_text_en text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_kind = 'raise' THEN
        IF EXISTS (SELECT 1 FROM alert WHERE id = p_alert) THEN
            RETURN;
        END IF;
        -- An open alert of this rule and object that the engine no longer knows: its state was lost, or the rule edited.
        WITH old AS (
            UPDATE alert SET cleared_at = greatest(p_at, raised_at), changed_at = greatest(p_at, raised_at)
            WHERE rule_id = p_rule AND object = p_object AND cleared_at IS NULL
            RETURNING id, level, cleared_at
        )
        INSERT INTO alert_transition (alert_id, kind, level, at) SELECT id, 'supersede', level, cleared_at FROM old;
        INSERT INTO alert (id, rule_id, rule_version, domain, object, series_id, level, level_max, raised_at, changed_at,
                           value, limit_value, title_zh, title_en, text_zh, text_en)
        VALUES (p_alert, p_rule, p_version, p_domain, p_object, p_series, p_level, p_level, p_at, p_at,
                p_value, p_limit, p_title_zh, p_title_en, p_text_zh, p_text_en);
    ELSIF NOT EXISTS (SELECT 1 FROM alert WHERE id = p_alert) THEN
        RETURN;     -- of an alert that was raised under a state since lost; it was superseded
    END IF;
    INSERT INTO alert_transition (alert_id, kind, level, at, value, limit_value, evidence, text_zh, text_en)
    VALUES (p_alert, p_kind, p_level, p_at, p_value, p_limit, p_evidence, p_text_zh, p_text_en)
    ON CONFLICT (alert_id, kind, level, at) WHERE actor IS NULL DO NOTHING;
    IF FOUND AND p_kind <> 'raise' THEN
        UPDATE alert SET
            level = CASE WHEN p_kind = 'clear' THEN level ELSE p_level END,
            level_max = greatest(level_max, p_level),
            changed_at = p_at,
            cleared_at = CASE WHEN p_kind = 'clear' THEN p_at ELSE cleared_at END,
            value = p_value,
            limit_value = coalesce(p_limit, limit_value),
            text_zh = p_text_zh,
            text_en = p_text_en
        WHERE id = p_alert AND cleared_at IS NULL;
    END IF;
END $$;
