-- What came late is judged in hindsight (ADR 26): alerts that were missed are recorded as what they are, alerts that were get a note.

-- Where late readings lie that no hindsight has looked at yet; one row a series, written by the commit that stores them. Without
-- foreign key and further index: a backlog of a whole city is tens of thousands of rows in one commit, and series are never deleted.
CREATE TABLE late_span (
    series_id  integer PRIMARY KEY,
    from_us    bigint NOT NULL,             -- event times of the earliest and the latest of them, µs since 1970
    to_us      bigint NOT NULL,
    readings   bigint NOT NULL,
    known_at   timestamptz NOT NULL DEFAULT now(),      -- when the first of them was stored
    changed_at timestamptz NOT NULL DEFAULT now(),
    revision   bigint NOT NULL DEFAULT 1    -- counts commits: who looked at a revision removes that and no later one
);

-- When a retrospective alert was learned of; null for one that was raised as it happened.
ALTER TABLE alert ADD COLUMN known_at timestamptz;
-- A retrospective alert is over before anybody hears of it: it is never the open one of its rule and object.
ALTER TABLE alert ADD CONSTRAINT alert_retrospective_is_over CHECK (known_at IS NULL OR cleared_at IS NOT NULL);

-- Kind 'revise': what is known better of an alert; `at` is the time it was learned, the evidence holds the event times.
ALTER TABLE alert_transition DROP CONSTRAINT alert_transition_kind_check;
ALTER TABLE alert_transition ADD CONSTRAINT alert_transition_kind_check
    CHECK (kind IN ('raise', 'escalate', 'deescalate', 'clear', 'supersede', 'ack', 'revise'));
