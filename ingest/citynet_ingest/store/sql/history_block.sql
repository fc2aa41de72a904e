-- Readings of a stretch of time as arrays, one row a series and quality: an array costs the server and the wire much less than as
-- many rows. Late ones are among them, in rows of their own; the reader drops those.
COPY (
    SELECT series_id, quality, array_agg(time), array_agg(value) FROM reading
    WHERE time >= {from_at} AND time < {to_at} GROUP BY series_id, quality
) TO STDOUT (FORMAT binary)
