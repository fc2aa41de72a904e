-- Readings of a stretch of time, one row a series and quality, times and values as the bytes that COPY would send one behind the
-- other: a row a reading costs the wire and the reader far more, and an array has every element sent by a call of its own. Late
-- ones are among them, in rows of their own; the reader drops those.
COPY (
    SELECT series_id, quality, string_agg(timestamptz_send(time), ''), string_agg(float8send(value), '') FROM reading
    WHERE time >= {from_at} AND time < {to_at} GROUP BY series_id, quality
) TO STDOUT (FORMAT binary)
