-- Bearer tokens of the API, hashed.

CREATE TABLE api_token (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    role       text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    digest     bytea NOT NULL UNIQUE,       -- SHA-256 of a 256-bit random token: nothing to guess, so no slow hash is needed
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
