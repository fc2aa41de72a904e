-- Work is shared by lanes: eight shards each, with one MQTT session a lane, whichever worker holds it. What a session needs
-- belongs to its lane; what a worker knows belongs to the claim under which it holds its lanes.

-- One row each time that a worker takes lanes. A commit steps the number of its claim; a claim that was revoked, because
-- one of its lanes was taken again, commits nothing any more. After a connection lost during COMMIT the number tells
-- which way it went: nobody else writes under this claim.
CREATE TABLE ingest_claim (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner      text NOT NULL,                   -- name of the worker, for people
    lanes      integer[] NOT NULL,              -- that it took; which of them are still its own says ingest_lane
    number     bigint NOT NULL DEFAULT 0,       -- of its last commit
    revoked    boolean NOT NULL DEFAULT false,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    at         timestamptz NOT NULL DEFAULT now()
);

-- Whose each lane is, or was last. The number of lanes is fixed here: the sessions at the broker follow it.
CREATE TABLE ingest_lane (
    lane  integer PRIMARY KEY CHECK (lane BETWEEN 0 AND 7),
    claim bigint NOT NULL REFERENCES ingest_claim
);

-- What workers kept under the name of their range goes on as claims; of two that overlap the newer one counts.
INSERT INTO ingest_claim (owner, lanes, number, revoked, claimed_at, at)
SELECT w.worker,
       ARRAY(SELECT lane FROM generate_series(0, 7) AS lane
             WHERE lane * 8 >= split_part(w.worker, '-', 1)::integer AND lane * 8 + 7 <= split_part(w.worker, '-', 2)::integer),
       w.number, true, w.at, w.at
FROM ingest_commit w;

INSERT INTO ingest_lane (lane, claim)
SELECT DISTINCT ON (lane) lane, c.id FROM ingest_claim c, unnest(c.lanes) AS lane ORDER BY lane, c.at DESC;

ALTER TABLE engine_snapshot ADD COLUMN claim bigint;
UPDATE engine_snapshot s SET claim = c.id FROM ingest_claim c WHERE c.owner = s.worker;
DELETE FROM engine_snapshot WHERE claim IS NULL;
ALTER TABLE engine_snapshot DROP COLUMN worker, ADD PRIMARY KEY (claim),
    ADD FOREIGN KEY (claim) REFERENCES ingest_claim ON DELETE CASCADE;

DELETE FROM ingest_claim c WHERE NOT EXISTS (SELECT FROM ingest_lane l WHERE l.claim = c.id);
DROP TABLE ingest_commit;

-- Receipts are of a session. Those of the sessions before lanes recognise nothing any more.
DROP TABLE direct_receipt;
CREATE TABLE direct_receipt (
    lane   integer NOT NULL CHECK (lane BETWEEN 0 AND 7),
    id     bigint GENERATED ALWAYS AS IDENTITY,
    hashes bytea NOT NULL,      -- 16 bytes a message, in the order of the session
    PRIMARY KEY (lane, id)
);
