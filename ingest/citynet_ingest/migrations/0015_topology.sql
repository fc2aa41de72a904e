-- Where things stand and what is joined by what: districts with their outlines, assets, the edges of networks in the direction of
-- flow, and which device stands at which asset. All of it is registered by people; nothing appears here by itself.

CREATE TABLE district (
    name    text PRIMARY KEY,       -- what device.district and asset.district say
    label   text,
    outline jsonb                   -- outer ring, [[lon, lat], ...], WGS 84, closed
);

CREATE TABLE asset (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name     text NOT NULL UNIQUE,
    kind     text NOT NULL,         -- manhole, pump-station, junction, tank, bridge ...
    label    text,
    district text,
    lon      double precision CHECK (lon BETWEEN -180 AND 180),   -- WGS 84
    lat      double precision CHECK (lat BETWEEN -90 AND 90)
);

CREATE TABLE asset_device (
    device_id integer PRIMARY KEY REFERENCES device,
    asset_id  integer NOT NULL REFERENCES asset
);
CREATE INDEX asset_device_asset ON asset_device (asset_id);

CREATE TABLE edge (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    network  text NOT NULL,         -- sewer, gas, water ...
    name     text NOT NULL,
    kind     text NOT NULL DEFAULT 'pipe',
    from_id  integer NOT NULL REFERENCES asset,                   -- flow is from here
    to_id    integer NOT NULL REFERENCES asset,                   -- to here
    length_m double precision CHECK (length_m >= 0),
    line     jsonb,                 -- [[lon, lat], ...] from start to end
    UNIQUE (network, name),
    CHECK (from_id <> to_id)
);
CREATE INDEX edge_from ON edge (from_id, network);
CREATE INDEX edge_to ON edge (to_id, network);
