-- Sensor fault or city event: the verdict on an alert, whom it is for, and the sentence that says why.

ALTER TABLE alert
    ADD COLUMN verdict    text NOT NULL DEFAULT 'undecided' CHECK (verdict IN ('event', 'device', 'undecided')),
    ADD COLUMN audience   text NOT NULL DEFAULT 'people' CHECK (audience IN ('people', 'maintenance')),
    ADD COLUMN verdict_at timestamptz,          -- event time since which it holds; null: nobody has judged
    ADD COLUMN verdict_zh text NOT NULL DEFAULT '',
    ADD COLUMN verdict_en text NOT NULL DEFAULT '',
    ADD COLUMN people     boolean NOT NULL DEFAULT true;    -- whether it was ever for people
UPDATE alert SET verdict = 'device', audience = 'maintenance', people = false WHERE domain = 'device';

ALTER TABLE alert_transition DROP CONSTRAINT alert_transition_kind_check;
ALTER TABLE alert_transition ADD CONSTRAINT alert_transition_kind_check
    CHECK (kind IN ('raise', 'escalate', 'deescalate', 'clear', 'supersede', 'ack', 'revise', 'verdict'));

-- A verdict of the engine, after the transition that carries it (a raise or a revision) was recorded. A verdict may come behind
-- its alert's clear; an older one never replaces a newer one.
CREATE FUNCTION record_verdict(
    p_alert text, p_verdict text, p_audience text, p_at timestamptz, p_zh text, p_en text
) RETURNS void LANGUAGE sql AS $$
    UPDATE alert SET verdict = p_verdict, audience = p_audience, verdict_at = p_at, verdict_zh = p_zh, verdict_en = p_en,
                     people = (verdict_at IS NOT NULL AND people) OR p_audience = 'people'
    WHERE id = p_alert AND (verdict_at IS NULL OR verdict_at <= p_at)
$$;

-- A revision is a transition that changes nothing of the alert but its verdict.
CREATE FUNCTION record_revision(
    p_alert text, p_level integer, p_at timestamptz, p_evidence jsonb, p_text_zh text, p_text_en text
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO alert_transition (alert_id, kind, level, at, evidence, text_zh, text_en, mode)
    SELECT p_alert, 'verdict', p_level, p_at, p_evidence, p_text_zh, p_text_en, a.mode FROM alert a WHERE a.id = p_alert
    ON CONFLICT (alert_id, kind, level, at) WHERE actor IS NULL DO NOTHING
$$;
