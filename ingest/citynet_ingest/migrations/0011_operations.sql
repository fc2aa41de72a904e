-- Dead letters can be tried again; gateways carry their canary's delay; what went wrong beside the data has a place.

ALTER TABLE dead_letter
    ADD COLUMN received_us     bigint,          -- the server's clock when it came, µs since 1970
    ADD COLUMN scope           text,            -- what the payload is: batch, message, value, reading, field, none
    ADD COLUMN key             bytea,           -- of a whole message that its sender named: the digest of `message_key`,
    ADD COLUMN key_body        bytea,           -- and the hash of its body, to be remembered when a redrive stores it
    ADD COLUMN redrives        integer NOT NULL DEFAULT 0,     -- how often it was tried again
    ADD COLUMN redrive_error   text,            -- why the last try failed
    ADD COLUMN redriven_at     timestamptz,     -- when it was booked anew; from then on it is no dead letter any more
    ADD COLUMN redriven_by     text,
    ADD COLUMN redriven_stored bigint;          -- readings that it gave

-- A payload that comes again after its redrive is a new letter.
DROP INDEX dead_letter_unsequenced;
CREATE UNIQUE INDEX dead_letter_unsequenced ON dead_letter (topic, digest) WHERE seq IS NULL AND redriven_at IS NULL;

-- A key is not forgotten while a letter of it is open: the message may have come again and have been stored.
CREATE INDEX dead_letter_key ON dead_letter (key) WHERE key IS NOT NULL AND redriven_at IS NULL;

-- Letters that somebody asked to have tried again. The worker that owns the shard takes them, and removes the request in the
-- transaction that books the letter.
CREATE TABLE dead_letter_redrive (
    letter_id    bigint PRIMARY KEY REFERENCES dead_letter ON DELETE CASCADE,
    shard        smallint NOT NULL,     -- of the sender that the topic names
    asked_at     timestamptz NOT NULL DEFAULT now(),
    asked_by     text NOT NULL,
    content_type text                   -- of field and direct messages, if it is not what it was taken for
);
CREATE INDEX dead_letter_redrive_shard ON dead_letter_redrive (shard, letter_id);

ALTER TABLE gateway
    ADD COLUMN canary_at timestamptz,           -- when the gateway accepted the newest reading of its own that is stored
    ADD COLUMN delay_s   double precision;      -- from there to the beginning of the transaction that stored it

-- Things that operators must see and that no reading tells: counted by the hour, so that a storm stays a few rows.
CREATE TABLE system_event (
    kind    text NOT NULL,              -- broker_dropped, gateway_cloned
    object  text NOT NULL,              -- which broker, which gateway
    since   timestamptz NOT NULL,       -- the hour
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    count   bigint NOT NULL,
    detail  text NOT NULL DEFAULT '',
    PRIMARY KEY (kind, object, since)
);
CREATE INDEX system_event_last ON system_event (last_at DESC);

-- Where the broker's own counters stood when they were last looked at.
CREATE TABLE broker_counter (
    name  text PRIMARY KEY,
    value bigint NOT NULL,
    at    timestamptz NOT NULL DEFAULT now()
);
