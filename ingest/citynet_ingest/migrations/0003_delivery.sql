-- The books of delivery: what has been stored of every stream, what could not be stored, what is lost and why.

-- One row per gateway, stream and epoch. Always: seq = stored + dead_lettered + lost + noted.
CREATE TABLE stream_cursor (
    gateway       text NOT NULL,
    stream        text NOT NULL,
    epoch         bigint NOT NULL,
    seq           bigint NOT NULL,
    stored        bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    lost          bigint NOT NULL DEFAULT 0,
    noted         bigint NOT NULL DEFAULT 0,
    claimed       bigint NOT NULL DEFAULT 0,   -- highest number the gateway said it had accepted
    first_at      timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway, stream, epoch),
    CONSTRAINT conservation CHECK (seq = stored + dead_lettered + lost + noted)
);

-- Readings of devices without a gateway have no sequence; they are counted per worker.
CREATE TABLE direct_tally (
    worker        text PRIMARY KEY,
    stored        bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    duplicates    bigint NOT NULL DEFAULT 0
);

CREATE TABLE dead_letter (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    last_at      timestamptz NOT NULL DEFAULT now(),
    times        integer NOT NULL DEFAULT 1,
    topic        text NOT NULL,
    source       text,
    stream       text,
    epoch        bigint,
    seq          bigint,
    records      bigint NOT NULL DEFAULT 1,
    reason       text NOT NULL,
    place        text NOT NULL,
    detail       text NOT NULL,
    content_type text,
    payload      bytea NOT NULL,
    digest       bytea NOT NULL
);
CREATE INDEX dead_letter_at ON dead_letter (at DESC, id DESC);
-- A payload that carries no sequence and comes again is the same dead letter, counted.
CREATE UNIQUE INDEX dead_letter_unsequenced ON dead_letter (topic, digest) WHERE seq IS NULL;

CREATE TABLE loss (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    gateway text NOT NULL,
    stream  text NOT NULL,
    epoch   bigint NOT NULL,
    first   bigint NOT NULL,
    last    bigint NOT NULL,
    count   bigint GENERATED ALWAYS AS (last - first + 1) STORED,
    reason  text NOT NULL,
    UNIQUE (gateway, stream, epoch, first)
);

-- Clock and event notes of gateways.
CREATE TABLE gateway_note (
    gateway text NOT NULL,
    stream  text NOT NULL,
    epoch   bigint NOT NULL,
    seq     bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    kind    text NOT NULL,
    body    jsonb NOT NULL,
    PRIMARY KEY (gateway, stream, epoch, seq)
);
CREATE INDEX gateway_note_at ON gateway_note (at DESC);

-- Number of the last commit of a worker: after a connection lost during COMMIT it tells which way it went, and it
-- makes two workers of one name collide instead of interleaving.
CREATE TABLE ingest_commit (
    worker text PRIMARY KEY,
    number bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);

-- Hashes of the last messages without sequence, so that a redelivery after a crash is recognised.
CREATE TABLE direct_receipt (
    worker text NOT NULL,
    number bigint NOT NULL,
    hashes bytea NOT NULL,      -- 16 bytes a message
    PRIMARY KEY (worker, number)
);

CREATE TABLE engine_snapshot (
    worker text PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    state  bytea NOT NULL
);
