-- Who exists: gateways, devices, series. Rows appear by themselves when something is heard of for the first time
-- (registered = false); registration adds what only people know.

CREATE TABLE gateway (
    id            text PRIMARY KEY,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_batch_at timestamptz,
    online        boolean NOT NULL DEFAULT false,
    status        jsonb,
    status_at     timestamptz
);

CREATE TABLE device (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE,
    source        text NOT NULL,          -- the gateway it was heard through; its own name without a gateway
    kind          text,
    district      text,
    lon           double precision CHECK (lon BETWEEN -180 AND 180),   -- WGS 84
    lat           double precision CHECK (lat BETWEEN -90 AND 90),
    registered    boolean NOT NULL DEFAULT false,
    first_seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE series (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id     integer NOT NULL REFERENCES device,
    metric        text NOT NULL,
    unit          text,
    low           double precision,       -- physical range of the sensor
    high          double precision,
    registered    boolean NOT NULL DEFAULT false,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (device_id, metric)
);
