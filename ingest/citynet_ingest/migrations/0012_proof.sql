-- Rules in shadow, and how rules come to be armed: who, when, why, and how they had scored.

-- A rule in shadow is evaluated and its alerts are kept, but nobody is shown them unless they ask.
ALTER TABLE alert ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'shadow'));
ALTER TABLE alert_transition ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'shadow'));
-- What the console always shows is live; the indexes that serve it hold nothing else.
DROP INDEX alert_open_raised;
DROP INDEX alert_unacked_raised;
CREATE INDEX alert_open_raised ON alert (raised_at DESC, id DESC) WHERE cleared_at IS NULL AND mode = 'live';
CREATE INDEX alert_unacked_raised ON alert (raised_at DESC, id DESC) WHERE acked_at IS NULL AND mode = 'live';
CREATE INDEX alert_shadow_raised ON alert (raised_at DESC, id DESC) WHERE mode = 'shadow';

ALTER TABLE rule
    ADD COLUMN mode     text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'shadow')),   -- as it was armed last
    ADD COLUMN digest   text,               -- of the whole rule, and of what decides in it
    ADD COLUMN fingerprint text,
    ADD COLUMN armed_at timestamptz,        -- since when a worker evaluates it as it is; null: none does
    ADD COLUMN why      text;               -- why it is in shadow though its file says live

-- One row a rule and decision of people to arm it. Append only; the worker adds what it armed without being told who by.
CREATE TABLE rule_arming (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    rule_id     text NOT NULL,
    version     text NOT NULL,
    digest      text NOT NULL,              -- of the whole rule: a decision is about this text and no other
    mode        text NOT NULL CHECK (mode IN ('live', 'shadow')),
    author      text NOT NULL,
    reason      text NOT NULL,
    override_by text,                       -- who answers for arming it although it was not proved, and why
    override_reason text,
    refusals    text[] NOT NULL DEFAULT '{}',   -- what was overridden
    db_role     text NOT NULL DEFAULT session_user,
    CHECK ((override_by IS NULL) = (override_reason IS NULL))
);
CREATE INDEX rule_arming_rule ON rule_arming (rule_id, id DESC);

-- Scores that were kept. `fingerprint` names what decides; titles and guidance may change without a new score.
CREATE TABLE rule_score (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    rule_id     text NOT NULL,
    version     text NOT NULL,
    fingerprint text NOT NULL,
    author      text NOT NULL,
    truth       text NOT NULL,              -- digest of the truth's header
    from_at     timestamptz NOT NULL,
    to_at       timestamptz NOT NULL,
    precision   double precision,
    recall      double precision,
    body        jsonb NOT NULL
);
CREATE INDEX rule_score_rule ON rule_score (rule_id, fingerprint, id DESC);

DROP FUNCTION record_transition;

-- As in migration 4, with the mode; and what took an alert's place because its rule was edited, or the engine's state was lost,
-- keeps its acknowledgement: somebody has taken notice.
CREATE FUNCTION record_transition(
    p_alert text, p_rule text, p_version text, p_domain text, p_object text, p_series integer, p_kind text, p_level integer,
    p_at timestamptz, p_value double precision, p_limit double precision, p_evidence jsonb,
    p_title_zh text, p_title_en text, p_text_zh text, p_text_en text, p_mode text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before record;
BEGIN
    IF p_kind = 'raise' THEN
        IF EXISTS (SELECT 1 FROM alert WHERE id = p_alert) THEN
            RETURN;
        END IF;
        UPDATE alert SET cleared_at = greatest(p_at, raised_at), changed_at = greatest(p_at, raised_at)
        WHERE rule_id = p_rule AND object = p_object AND cleared_at IS NULL
        RETURNING id, level, cleared_at, mode, acked_at, acked_by, ack_comment INTO before;
        IF FOUND THEN
            INSERT INTO alert_transition (alert_id, kind, level, at, mode)
            VALUES (before.id, 'supersede', before.level, before.cleared_at, before.mode);
        END IF;
        INSERT INTO alert (id, rule_id, rule_version, domain, object, series_id, level, level_max, raised_at, changed_at,
                           value, limit_value, title_zh, title_en, text_zh, text_en, mode, acked_at, acked_by, ack_comment)
        VALUES (p_alert, p_rule, p_version, p_domain, p_object, p_series, p_level, p_level, p_at, p_at,
                p_value, p_limit, p_title_zh, p_title_en, p_text_zh, p_text_en, p_mode,
                before.acked_at, before.acked_by, before.ack_comment);
    ELSIF NOT EXISTS (SELECT 1 FROM alert WHERE id = p_alert) THEN
        RETURN;     -- of an alert that was raised under a state since lost; it was superseded
    END IF;
    INSERT INTO alert_transition (alert_id, kind, level, at, value, limit_value, evidence, text_zh, text_en, mode)
    SELECT p_alert, p_kind, p_level, p_at, p_value, p_limit, p_evidence, p_text_zh, p_text_en, a.mode
    FROM alert a WHERE a.id = p_alert
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
