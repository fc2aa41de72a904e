-- What devices and platforms without sequence numbers need: keys that recognise a message sent again, tokens that let one
-- source push over HTTP, and the counters of uplinks.

-- A key is a hash of what its sender calls one message (an idempotency key, ChirpStack's deduplicationId). It is written in the
-- transaction that stores the message, so a message of a known key is stored already, whoever sent it again and whenever.
CREATE TABLE message_key (
    digest bytea PRIMARY KEY,                       -- 16 bytes
    body   bytea NOT NULL,                          -- hash of the body it came with; empty: any body is the same message
    at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX message_key_at ON message_key USING brin (at) WITH (pages_per_range = 16);

-- A source token lets its bearer push as `source`, and is no token of the api.
ALTER TABLE api_token DROP CONSTRAINT api_token_role_check;
ALTER TABLE api_token ADD COLUMN source text;
ALTER TABLE api_token ADD CONSTRAINT api_token_role_check CHECK (role IN ('viewer', 'operator', 'admin', 'source'));
ALTER TABLE api_token ADD CONSTRAINT api_token_source_check CHECK ((role = 'source') = (source IS NOT NULL));

-- Uplinks carry a frame counter: what is missing between two of them was lost on the air or between network server and us.
CREATE TABLE device_uplink (
    device    text PRIMARY KEY,
    counter   bigint NOT NULL,                      -- of the last uplink
    received  bigint NOT NULL DEFAULT 0,
    missing   bigint NOT NULL DEFAULT 0,            -- counters that were passed over
    restarts  bigint NOT NULL DEFAULT 0,            -- counters that did not rise: the device joined anew
    first_at  timestamptz NOT NULL DEFAULT now(),
    last_at   timestamptz NOT NULL DEFAULT now()
);
