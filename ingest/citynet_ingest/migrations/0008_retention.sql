-- Life of the data: spans that retention must not touch, and the books of what it removed.

-- Times are event times of readings (and times of arrival of dead letters and notes). A hold is released, never removed.
CREATE TABLE legal_hold (
    id             integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_at        timestamptz NOT NULL,
    to_at          timestamptz NOT NULL,      -- exclusive
    reason         text NOT NULL CHECK (reason <> ''),
    placed_at      timestamptz NOT NULL DEFAULT now(),
    placed_by      text NOT NULL CHECK (placed_by <> ''),
    placed_role    text NOT NULL DEFAULT session_user,
    released_at    timestamptz,
    released_by    text CHECK (released_by <> ''),
    released_role  text,
    release_reason text CHECK (release_reason <> ''),
    CHECK (to_at > from_at),
    CHECK (num_nulls(released_at, released_by, released_role, release_reason) IN (0, 4))
);

CREATE FUNCTION legal_hold_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.released_at IS NOT NULL OR NEW.released_at IS NULL
       OR (NEW.id, NEW.from_at, NEW.to_at, NEW.reason, NEW.placed_at, NEW.placed_by, NEW.placed_role)
          IS DISTINCT FROM (OLD.id, OLD.from_at, OLD.to_at, OLD.reason, OLD.placed_at, OLD.placed_by, OLD.placed_role) THEN
        RAISE EXCEPTION 'a legal hold is released once and otherwise never changed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER legal_hold_keep BEFORE UPDATE OR DELETE ON legal_hold FOR EACH ROW EXECUTE FUNCTION legal_hold_keep();

-- One row for every chunk or partition dropped, and one a run for rows deleted, written in the transaction that removes them:
-- the audit adds `records` to what it finds.
CREATE TABLE retired (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text NOT NULL,
    tbl     text NOT NULL,                    -- reading, rollup_minute, rollup_hour, dead_letter, gateway_note
    part    text,                             -- chunk or partition; null: rows were deleted
    from_at timestamptz NOT NULL,
    to_at   timestamptz NOT NULL,             -- exclusive
    rows    bigint NOT NULL,
    records bigint NOT NULL,                  -- readings, for rollups the readings in them; records of dead letters
    bytes   bigint NOT NULL
);
CREATE INDEX retired_tbl_from ON retired (tbl, from_at);
